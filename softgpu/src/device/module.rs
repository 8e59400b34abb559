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
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};

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
        let names = program.kernels().iter().map(|kernel| c_string(&kernel.name)).collect();
        Self { program: Arc::new(program), ptx_version, names }
    }

    /// The index of a kernel.
    pub(crate) fn kernel(&self, name: &str) -> Option<usize> {
        self.program.kernels().iter().position(|kernel| kernel.name == name)
    }

    /// Bytes of constant memory.
    pub(crate) fn constant_bytes(&self) -> u64 {
        let constants = self.program.globals().iter().filter(|global| global.space == GlobalSpace::Const);
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
    /// Kernels that were launched, where that matters ([`Module::load`]).
    launched: Mutex<BTreeSet<usize>>,
    this: Weak<Self>,
}

/// Every module of the process.
pub(crate) static MODULES: Table<CUmodule, Module> = Table::new();

/// Loads code into a context: places its variables and writes their initial values. Managed variables of a library
/// are in place already, the same for all contexts.
///
/// # Errors
/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub(crate) fn load(
    active: &Arc<Active>,
    code: Arc<Code>,
    library: CUlibrary,
    managed: &[Option<u64>],
) -> Result<Arc<Module>, CUresult> {
    let symbols = place(active, &code.program, managed)?;
    let (_, module) = MODULES.insert_shared_with(|handle| {
        Arc::new_cyclic(|this| Module {
            handle,
            life: active.life,
            owner: Arc::downgrade(active),
            code,
            library,
            symbols,
            functions: OnceLock::new(),
            launched: Mutex::default(),
            this: Weak::clone(this),
        })
    })?;
    Ok(module)
}

/// Ends a module: its functions, its variables and its handle. The caller has waited for the work that uses it.
pub(crate) fn unload(module: &Module) {
    MODULES.remove(module.handle);
    if let Some(functions) = module.functions.get() {
        for function in functions {
            super::kernel::FUNCTIONS.remove(function.handle);
        }
    }
    let own = |held: &Arc<allocation::Allocation>| held.life == module.life;
    for held in module.symbols.iter().filter_map(|address| allocation::starting_at(*address)).filter(own) {
        crate::api::memory::give_back(&held);
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
        let count = self.code.program.kernels().len();
        let made = (0..count).map(|index| Function::create(&module, index)).collect::<Result<Vec<_>, _>>()?;
        let made = self.functions.get_or_init(|| made);
        Ok(made)
    }

    /// With `PXSOFT_LAZY_LOADING=1`, the first launch of a kernel waits for all work of its context: the driver may do so to load
    /// its code (CUDA programming guide, "Lazy Loading").
    pub(crate) fn load(&self, kernel: usize, active: &Active) {
        static LAZY: LazyLock<bool> =
            LazyLock::new(|| std::env::var_os("PXSOFT_LAZY_LOADING").is_some_and(|value| value == "1"));
        if *LAZY && self.launched.lock().unwrap_or_else(PoisonError::into_inner).insert(kernel) {
            active.wait();
        }
    }

    /// Address and length of a variable.
    pub(crate) fn global(&self, name: &str) -> Option<(u64, u64)> {
        let index = self.code.program.globals().iter().position(|global| global.name == name)?;
        Some((*self.symbols.get(index)?, self.code.program.globals()[index].size))
    }
}

/// Places a program's variables in a context's device memory, but for those that have a place.
fn place(active: &Arc<Active>, program: &Program, managed: &[Option<u64>]) -> Result<Arc<[u64]>, CUresult> {
    let globals = program.globals();
    let mut symbols = Vec::with_capacity(globals.len());
    for (index, global) in globals.iter().enumerate() {
        if let Some(placed) = managed.get(index).copied().flatten() {
            symbols.push(placed);
            continue;
        }
        let origin = if global.managed { Origin::Managed(1) } else { Origin::Module };
        // An empty variable has an address of its own too.
        match crate::api::memory::allocate(active, global.size.max(1), origin) {
            Ok(address) => symbols.push(address),
            Err(error) => {
                let fresh = |address: &&u64| !managed.contains(&Some(**address));
                for held in
                    symbols.iter().filter(fresh).filter_map(|address| allocation::starting_at(*address))
                {
                    crate::api::memory::give_back(&held);
                }
                return Err(error);
            }
        }
    }
    let memory = &active.device.memory;
    for (index, (global, address)) in globals.iter().zip(&symbols).enumerate() {
        if managed.get(index).copied().flatten().is_none() {
            let image = program.initial(global, &symbols);
            memory.write(*address, &image).map_err(|_| CUresult::ERROR_UNKNOWN)?;
        }
    }
    Ok(symbols.into())
}

/// Places the managed variables of a library, which belong to no context; `None` for the others.
///
/// # Errors
/// `CUDA_ERROR_OUT_OF_MEMORY`; `CUDA_ERROR_NOT_SUPPORTED` for one whose initial value is the address of a variable that
/// every context has its own of.
pub(crate) fn place_managed(program: &Program) -> Result<Vec<Option<u64>>, CUresult> {
    let globals = program.globals();
    let mut placed = vec![None; globals.len()];
    for (global, place) in globals.iter().zip(&mut placed).filter(|(global, _)| global.managed) {
        *place = Some(crate::api::memory::allocate_managed(global.size.max(1))?);
    }
    let symbols: Vec<u64> = placed.iter().map(|place| place.unwrap_or(0)).collect();
    for (global, address) in globals.iter().zip(&placed) {
        let Some(address) = address else { continue };
        if global.relocations.iter().any(|relocation| symbols[relocation.target] == 0) {
            return Err(CUresult::ERROR_NOT_SUPPORTED);
        }
        let image = program.initial(global, &symbols);
        let memory = &super::platform()?.device(0)?.memory;
        memory.write(*address, &image).map_err(|_| CUresult::ERROR_UNKNOWN)?;
    }
    Ok(placed)
}
