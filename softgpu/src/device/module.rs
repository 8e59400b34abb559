//! Modules: code loaded into a context, with its variables in the device's memory.
//!
//! [`Code`] is an image compiled once; a [`Module`] is that code in one life of a context. A library has code of its
//! own and one module per context, made when first needed.

use super::allocation::{self, Origin};
use super::context::Active;
use super::kernel::Function;
use super::table::Table;
use crate::exec::{GlobalSpace, Program};
use pxos_protocol::types::{CUlibrary, CUmodule, CUresult};
use std::sync::{Arc, OnceLock, Weak};

/// A compiled image.
#[derive(Debug)]
pub(crate) struct Code {
    /// What runs.
    pub(crate) program: Arc<Program>,
    /// `CU_FUNC_ATTRIBUTE_PTX_VERSION`: the target of the PTX, as 90 for `sm_90`.
    pub(crate) ptx_version: i32,
    /// Names of the kernels as C strings, for `cuFuncGetName`.
    pub(crate) names: Vec<std::ffi::CString>,
}

impl Code {
    /// Wraps a compiled program.
    pub(crate) fn new(program: Program, ptx_version: i32) -> Self {
        let c_string = |name: &str| std::ffi::CString::new(name).unwrap_or_default();
        let names = program.kernels.iter().map(|kernel| c_string(&kernel.name)).collect();
        Self { program: Arc::new(program), ptx_version, names }
    }

    /// The index of a kernel.
    pub(crate) fn kernel(&self, name: &str) -> Option<usize> {
        self.program.kernels.iter().position(|kernel| kernel.name == name)
    }

    /// Bytes of constant memory.
    pub(crate) fn constant_bytes(&self) -> u64 {
        let constants = self.program.globals.iter().filter(|global| global.space == GlobalSpace::Const);
        constants.map(|global| global.size).sum()
    }
}

/// Code in a context.
#[derive(Debug)]
pub(crate) struct Module {
    /// Its handle.
    pub(crate) handle: CUmodule,
    /// The life of its context.
    pub(crate) life: u64,
    /// Its context.
    pub(crate) owner: Weak<Active>,
    /// The code.
    pub(crate) code: Arc<Code>,
    /// The library that it belongs to; such a module is not unloaded by itself (measured).
    pub(crate) library: CUlibrary,
    /// Addresses of the variables, as the program numbers them.
    pub(crate) symbols: Arc<[u64]>,
    functions: OnceLock<Vec<Arc<Function>>>,
    this: Weak<Self>,
}

/// Every module of the process.
pub(crate) static MODULES: Table<CUmodule, Arc<Module>> = Table::new();

/// Loads code into a context: places its variables and writes their initial values.
///
/// # Errors
/// `CUDA_ERROR_OUT_OF_MEMORY`; `CUDA_ERROR_NOT_FOUND`-like damage cannot occur, since compilation checked the names.
pub(crate) fn load(active: &Arc<Active>, code: Arc<Code>, library: CUlibrary) -> Result<Arc<Module>, CUresult> {
    let symbols = place(active, &code.program)?;
    let (_, module) = MODULES.insert_with(|handle| {
        Arc::new_cyclic(|this| Module {
            handle,
            life: active.life,
            owner: Arc::downgrade(active),
            code,
            library,
            symbols,
            functions: OnceLock::new(),
            this: Weak::clone(this),
        })
    })?;
    Ok(Arc::clone(&module))
}

/// Ends a module: its functions, its variables and its handle. The caller has waited for the work that uses it.
pub(crate) fn unload(module: &Module) {
    MODULES.remove(module.handle);
    if let Some(functions) = module.functions.get() {
        for function in functions {
            super::kernel::FUNCTIONS.remove(function.handle);
        }
    }
    for address in module.symbols.iter() {
        if let Some(held) = allocation::starting_at(*address) {
            crate::api::memory::give_back(&held);
        }
    }
}

/// Ends the modules of a context that goes.
pub(crate) fn forget_life(life: u64) {
    for module in MODULES.all() {
        if module.life == life {
            unload(&module);
        }
    }
}

impl Module {
    /// The functions of all its kernels, made when first asked for.
    pub(crate) fn functions(&self) -> Result<&[Arc<Function>], CUresult> {
        if let Some(functions) = self.functions.get() {
            return Ok(functions);
        }
        let module = self.this.upgrade().ok_or(CUresult::ERROR_INVALID_HANDLE)?;
        let count = self.code.program.kernels.len();
        let made = (0..count).map(|index| Function::create(&module, index)).collect::<Result<Vec<_>, _>>()?;
        let made = self.functions.get_or_init(|| made);
        Ok(made)
    }

    /// Address and length of a variable.
    pub(crate) fn global(&self, name: &str) -> Option<(u64, u64)> {
        let index = self.code.program.globals.iter().position(|global| global.name == name)?;
        Some((*self.symbols.get(index)?, self.code.program.globals[index].size))
    }
}

/// Places a program's variables in a context's device memory.
fn place(active: &Arc<Active>, program: &Program) -> Result<Arc<[u64]>, CUresult> {
    let globals = &program.globals;
    let mut symbols = Vec::with_capacity(globals.len());
    for global in globals {
        // An empty variable has an address of its own too.
        let address = crate::api::memory::allocate(active, global.size.max(1), Origin::Module);
        match address {
            Ok(address) => symbols.push(address),
            Err(error) => {
                for held in symbols.iter().filter_map(|address| allocation::starting_at(*address)) {
                    crate::api::memory::give_back(&held);
                }
                return Err(error);
            }
        }
    }
    let memory = &active.device.memory;
    for (global, address) in globals.iter().zip(&symbols) {
        let size = usize::try_from(global.size).map_err(|_| CUresult::ERROR_OUT_OF_MEMORY)?;
        let mut image = global.init.clone();
        image.resize(size, 0);
        for relocation in &global.relocations {
            relocation.apply(&mut image, &symbols);
        }
        memory.write(*address, &image).map_err(|_| CUresult::ERROR_UNKNOWN)?;
    }
    Ok(symbols.into())
}
