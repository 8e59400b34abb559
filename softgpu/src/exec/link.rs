//! Names of several PTX modules put together: what each module sees, and what is defined where.

use std::collections::HashMap;

use super::lower::{Result, Symbol};
use crate::ptx::ast::{Function, Linkage, Module, Space, Variable};
use crate::ptx::{PtxError, Ty};

/// A module variable in device memory.
#[derive(Debug, Clone)]
pub(super) struct GlobalDef<'a> {
    pub(super) module: usize,
    pub(super) variable: Variable<'a>,
    pub(super) bytes: u64,
}

/// A statically sized shared variable.
#[derive(Debug, Clone, Copy)]
pub(super) struct SharedDef {
    pub(super) bytes: u32,
    pub(super) align: u32,
}

/// A function that has a body.
#[derive(Debug, Clone)]
pub(super) struct FunctionDef<'a> {
    pub(super) name: &'a str,
    pub(super) module: usize,
    /// Index into the module's functions.
    pub(super) index: usize,
    pub(super) entry: bool,
    params: Vec<Ty>,
    returns: Vec<Ty>,
}

/// Everything that is linked together.
#[derive(Debug, Default)]
pub(super) struct Unit<'a> {
    pub(super) globals: Vec<GlobalDef<'a>>,
    pub(super) shared: Vec<SharedDef>,
    pub(super) functions: Vec<FunctionDef<'a>>,
    /// Strictest alignment asked of dynamic shared memory.
    pub(super) dynamic_align: u32,
    /// What each module defines, and whether for all.
    own: Vec<HashMap<&'a str, (Symbol<'a>, bool)>>,
    /// What all modules see, and whether the definition is weak.
    visible: HashMap<&'a str, (Symbol<'a>, bool)>,
}

impl<'a> Unit<'a> {
    /// Collects the definitions of all modules.
    pub(super) fn new(modules: &[Module<'a>]) -> Result<Self> {
        let mut unit = Self { dynamic_align: 16, ..Self::default() };
        for (at, module) in modules.iter().enumerate() {
            unit.own.push(HashMap::new());
            for variable in &module.variables {
                let external = variable.linkage == Linkage::Extern && variable.space != Space::Shared;
                if !external {
                    unit.add_variable(at, variable, true)?;
                }
            }
            for (index, function) in module.functions.iter().enumerate() {
                if function.body.is_some() {
                    unit.add_function(at, index, function)?;
                }
            }
            for (new, old) in &module.aliases {
                let Some((symbol, shared)) = unit.own[at].get(old).cloned() else {
                    return Err(PtxError::new(1, 1, format!("alias of {old}, which is not defined")));
                };
                unit.own[at].insert(new, (symbol.clone(), shared));
                unit.visible.entry(new).or_insert((symbol, false));
            }
        }
        Ok(unit)
    }

    /// Enters a definition into the tables.
    fn define(
        &mut self,
        module: usize,
        name: &'a str,
        symbol: Symbol<'a>,
        linkage: Linkage,
        (line, column): (u32, u32),
    ) -> Result<()> {
        let twice = || Err(PtxError::new(line, column, format!("{name} is defined twice")));
        let weak = matches!(linkage, Linkage::Weak | Linkage::Common);
        let shared = linkage == Linkage::Visible || weak;
        if self.own[module].insert(name, (symbol.clone(), shared)).is_some() {
            return twice();
        }
        if shared {
            match self.visible.get(name) {
                Some((_, false)) if !weak => return twice(),
                Some((_, false)) => {}
                Some((_, true)) if weak => {}
                _ => {
                    self.visible.insert(name, (symbol, weak));
                }
            }
        }
        Ok(())
    }

    /// Adds a variable of module scope, or a static one of a function.
    pub(super) fn add_variable(
        &mut self,
        module: usize,
        variable: &Variable<'a>,
        top: bool,
    ) -> Result<Symbol<'a>> {
        let place = (variable.line, variable.column);
        let fail = |text: String| Err(PtxError::new(place.0, place.1, text));
        if matches!(variable.ty, Ty::Texref | Ty::Samplerref | Ty::Surfref) || variable.space == Space::Tex {
            return fail(format!(
                "{}: texture, sampler and surface references are not supported",
                variable.name
            ));
        }
        let symbol = match variable.space {
            Space::Shared if variable.bytes().is_none() || variable.linkage == Linkage::Extern => {
                self.dynamic_align = self.dynamic_align.max(variable.align);
                Symbol::DynamicShared
            }
            Space::Shared => {
                let bytes = variable.bytes().and_then(|bytes| u32::try_from(bytes).ok());
                let Some(bytes) = bytes else { return fail(format!("{} is too large", variable.name)) };
                self.shared.push(SharedDef { bytes, align: variable.align });
                Symbol::Shared(self.shared.len() - 1)
            }
            Space::Global | Space::Const => {
                let Some(bytes) = variable.bytes().filter(|bytes| *bytes < 1 << 40) else {
                    return fail(format!("{} has no usable size", variable.name));
                };
                self.globals.push(GlobalDef { module, variable: variable.clone(), bytes });
                Symbol::Global(self.globals.len() - 1)
            }
            Space::Reg | Space::Local | Space::Param | Space::Tex => {
                return fail(format!("{} cannot be declared here", variable.name));
            }
        };
        if top {
            let linkage =
                if matches!(symbol, Symbol::DynamicShared) { Linkage::Internal } else { variable.linkage };
            self.define(module, variable.name, symbol.clone(), linkage, place)?;
        }
        Ok(symbol)
    }

    fn add_function(&mut self, module: usize, index: usize, function: &Function<'a>) -> Result<()> {
        let types = |list: &[Variable<'a>]| list.iter().map(|variable| variable.ty).collect::<Vec<_>>();
        self.functions.push(FunctionDef {
            name: function.name,
            module,
            index,
            entry: function.entry,
            params: types(&function.params),
            returns: types(&function.returns),
        });
        let symbol = Symbol::Function(self.functions.len() - 1);
        let linkage = if function.entry && function.linkage == Linkage::Internal {
            // Kernels can be looked up by the host whatever their linkage.
            Linkage::Weak
        } else {
            function.linkage
        };
        self.define(module, function.name, symbol, linkage, (function.line, function.column))
    }

    /// What a name means in a module.
    pub(super) fn symbol(&self, module: usize, name: &str) -> Option<Symbol<'a>> {
        match self.own[module].get(name) {
            Some((symbol, false)) => Some(symbol.clone()),
            // A weak definition gives way to a strong one of another module.
            _ => self.visible.get(name).map(|(symbol, _)| symbol.clone()),
        }
    }

    /// Whether a function's definition is the one that its name stands for (weak duplicates are dropped).
    pub(super) fn chosen(&self, index: usize) -> bool {
        let function = &self.functions[index];
        matches!(self.symbol(function.module, function.name), Some(Symbol::Function(at)) if at == index)
    }

    /// Types of a function's parameters and results.
    pub(super) fn signature(&self, index: usize) -> (Vec<Ty>, Vec<Ty>) {
        let function = &self.functions[index];
        (function.params.clone(), function.returns.clone())
    }
}
