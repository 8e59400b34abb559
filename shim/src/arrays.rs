//! What the shim keeps of arrays and of what reads them: enough to answer what does not change, and to refuse dead handles
//! and copies out of bounds by the very call.

use crate::handles::HandleTable;
use pxos_protocol::types::{
    CUDA_ARRAY3D_DESCRIPTOR, CUDA_RESOURCE_DESC, CUDA_RESOURCE_VIEW_DESC, CUDA_TEXTURE_DESC, HandleKind,
};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, RwLock};

/// An array, a level of a mipmapped array, or a plane of an array.
#[derive(Debug)]
pub(crate) struct Array {
    /// Its handle.
    pub(crate) handle: u64,
    /// Its context's handle.
    pub(crate) context: u64,
    /// As the driver describes it.
    pub(crate) descriptor: CUDA_ARRAY3D_DESCRIPTOR,
    /// The array that it is a part of, 0 for one that stands for itself.
    pub(crate) parent: u64,
    /// Its planes that were asked for.
    pub(crate) parts: Mutex<HashMap<u32, u64>>,
}

/// A mipmapped array.
#[derive(Debug)]
pub(crate) struct MipmappedArray {
    /// Its handle.
    pub(crate) handle: u64,
    /// Its context's handle.
    pub(crate) context: u64,
    /// Its levels that were asked for.
    pub(crate) parts: Mutex<HashMap<u32, u64>>,
}

/// A texture or surface reference.
#[derive(Debug)]
pub(crate) struct Reference {
    /// Its handle.
    pub(crate) handle: u64,
    /// Its context's handle.
    pub(crate) context: u64,
    /// The module that has it, 0 for one that the application made.
    pub(crate) module: u64,
    /// Its name in the module.
    pub(crate) name: Vec<u8>,
    /// Whether it is a surface reference.
    pub(crate) surface: bool,
}

/// A texture object's or surface object's descriptions, as the application gave them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Object {
    /// The handle of its context.
    pub(crate) context: u64,
    /// What it reads.
    pub(crate) resource: CUDA_RESOURCE_DESC,
    /// How; not of a surface.
    pub(crate) texture: CUDA_TEXTURE_DESC,
    /// Which part.
    pub(crate) view: Option<CUDA_RESOURCE_VIEW_DESC>,
}

/// Texture or surface objects by the driver's value.
#[derive(Debug, Default)]
pub(crate) struct Objects(RwLock<HashMap<u64, Object>>);

impl Objects {
    /// Files one.
    pub(crate) fn insert(&self, value: u64, object: Object) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(value, object);
    }

    /// One that is alive.
    pub(crate) fn get(&self, value: u64) -> Option<Object> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&value).copied()
    }

    /// Takes one out.
    pub(crate) fn remove(&self, value: u64) -> Option<Object> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&value)
    }

    fn forget_context(&self, context: u64) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|_, object| object.context != context);
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Arrays {
    /// Live arrays, levels and planes.
    pub(crate) arrays: HandleTable<Array>,
    /// Live mipmapped arrays.
    pub(crate) mipmapped: HandleTable<MipmappedArray>,
    /// Live texture and surface references.
    pub(crate) references: HandleTable<Reference>,
    /// Live texture objects.
    pub(crate) textures: Objects,
    /// Live surface objects.
    pub(crate) surfaces: Objects,
}

impl Default for Arrays {
    fn default() -> Self {
        Self {
            arrays: HandleTable::new(HandleKind::Array),
            mipmapped: HandleTable::new(HandleKind::MipmappedArray),
            references: HandleTable::new(HandleKind::TextureReference),
            textures: Objects::default(),
            surfaces: Objects::default(),
        }
    }
}

impl Arrays {
    /// Everything of a context that ends.
    pub(crate) fn forget_context(&self, context: u64) {
        self.arrays.remove_all(|array| array.context == context);
        self.mipmapped.remove_all(|array| array.context == context);
        self.references.remove_all(|reference| reference.context == context);
        self.textures.forget_context(context);
        self.surfaces.forget_context(context);
    }

    /// The references of a module that is unloaded.
    pub(crate) fn forget_module(&self, module: u64) {
        self.references.remove_all(|reference| reference.module == module);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pxos_protocol::types::{CUarray, Resource};

    #[test]
    fn a_context_takes_its_objects_with_it() {
        let arrays = Arrays::default();
        let object = |context| Object {
            context,
            resource: Resource::Array(CUarray(1)).into(),
            texture: CUDA_TEXTURE_DESC::default(),
            view: None,
        };
        arrays.textures.insert(1, object(10));
        arrays.textures.insert(2, object(20));
        let reference = |context, module| {
            let made = arrays.references.mint(|handle| Reference {
                handle,
                context,
                module,
                name: Vec::new(),
                surface: false,
            });
            made.unwrap().handle
        };
        let (first, second, third) = (reference(10, 5), reference(20, 5), reference(20, 6));
        arrays.forget_context(10);
        assert!(arrays.textures.get(1).is_none() && arrays.textures.get(2).is_some());
        assert!(arrays.references.get(first).is_none() && arrays.references.get(second).is_some());
        arrays.forget_module(5);
        assert!(arrays.references.get(second).is_none() && arrays.references.get(third).is_some());
    }
}
