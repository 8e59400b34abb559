//! The checker's state while it turns one kernel's syntax into [`crate::ir`]: names, assignments, statements so far.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::ast::{self, Name};
use crate::diagnostic::{Diagnostic, Diagnostics, Span, nearest};
use crate::ir::{ArrayRef, Def, Expr, ExprKind, Stmt, Table, Unit, Var, VarId};
use crate::options::Options;
use crate::types::{ParamType, Scalar};

/// The check of one construct failed; why has been reported.
#[derive(Debug)]
pub(crate) struct Failed;

pub(crate) type Checked<T> = Result<T, Failed>;

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Binding {
    Var(VarId),
    /// Of a loop; only the loop changes it.
    Counter(VarId),
    Scalar(u32),
    Array(ArrayRef),
}

/// The functions and tables that a kernel can name.
#[derive(Debug)]
pub(crate) struct Library<'a> {
    pub(crate) functions: HashMap<&'a str, &'a ast::Function>,
    pub(crate) tables: HashMap<&'a str, Arc<Table>>,
}

/// Names of one kernel or of one call of a function.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) names: HashMap<String, Binding>,
    /// Where variables got a value that is not there on every way.
    pub(crate) partial: HashMap<VarId, u32>,
    /// The index that PARALLEL FOR supplies.
    pub(crate) element: Option<Expr>,
    pub(crate) trusted: bool,
}

#[derive(Debug)]
pub(crate) struct Lower<'a> {
    pub(crate) library: &'a Library<'a>,
    pub(crate) options: &'a Options,
    pub(crate) diagnostics: &'a mut Diagnostics,
    pub(crate) unit: Unit,
    /// Tables already in the unit.
    pub(crate) table_numbers: HashMap<String, u32>,
    pub(crate) frames: Vec<Frame>,
    /// Functions being expanded, outermost first.
    pub(crate) calls: Vec<String>,
    /// Statements of the block being lowered.
    pub(crate) out: Vec<Stmt>,
    /// Whether each variable has a value here.
    pub(crate) assigned: Vec<bool>,
    /// Variables whose value was a mistake: what is made of them is no mistake of its own.
    pub(crate) mistaken: HashSet<VarId>,
    pub(crate) operations: usize,
    /// Blocks around this place.
    pub(crate) depth: usize,
    pub(crate) line: u32,
    /// The kernel was found too large.
    pub(crate) overflow: bool,
}

impl<'a> Lower<'a> {
    pub(crate) fn new(
        library: &'a Library<'a>,
        options: &'a Options,
        diagnostics: &'a mut Diagnostics,
        unit: Unit,
    ) -> Self {
        Self {
            library,
            options,
            diagnostics,
            unit,
            table_numbers: HashMap::new(),
            frames: vec![Frame::default()],
            calls: Vec::new(),
            out: Vec::new(),
            assigned: Vec::new(),
            mistaken: HashSet::new(),
            operations: 0,
            depth: 0,
            line: 0,
            overflow: false,
        }
    }

    pub(crate) fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().expect("the kernel's own frame is never popped")
    }

    pub(crate) fn trusted(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.trusted)
    }

    pub(crate) fn error(&mut self, found: Diagnostic) -> Failed {
        // Mistakes inside the library's own text would be ours, not the program's.
        debug_assert!(!self.trusted(), "the library's text is wrong: {found}");
        self.diagnostics.push(found);
        Failed
    }

    pub(crate) fn fail(&mut self, code: &'static str, span: Span, message: String) -> Failed {
        self.error(Diagnostic::error(code, span, message))
    }

    /// Counts an operation; expansion of functions must not grow without bound.
    pub(crate) fn count(&mut self, span: Span) -> Checked<()> {
        self.operations += 1;
        if self.operations <= self.options.max_operations {
            return Ok(());
        }
        if !self.overflow {
            self.overflow = true;
            let message = format!(
                "the kernel has more than {} operations once its functions are expanded",
                self.options.max_operations
            );
            self.diagnostics.push(Diagnostic::error("too-large", span, message).hint("use a FOR loop"));
        }
        Err(Failed)
    }

    pub(crate) fn emit(&mut self, stmt: Stmt) {
        self.out.push(stmt);
    }

    pub(crate) fn new_var(&mut self, name: &str, ty: Scalar) -> VarId {
        let id = u32::try_from(self.unit.vars.len()).expect("operations are bounded");
        self.unit.vars.push(Var { name: name.to_owned(), ty, def: Def::None });
        self.assigned.push(false);
        id
    }

    /// A variable of the compiler's own with a value.
    pub(crate) fn temporary(&mut self, value: Expr) -> Expr {
        let ty = value.ty;
        let var = self.new_var("", ty);
        self.assigned[var as usize] = true;
        self.emit(Stmt::Assign { var, value });
        Expr::var(ty, var)
    }

    pub(crate) fn lookup(&self, name: &str) -> Option<Binding> {
        self.frames.last()?.names.get(name).copied()
    }

    /// The binding of a name, tables included.
    pub(crate) fn resolve(&mut self, name: &str) -> Option<Binding> {
        if let Some(binding) = self.lookup(name) {
            return Some(binding);
        }
        let table = self.library.tables.get(name)?;
        let next = u32::try_from(self.unit.tables.len()).ok()?;
        let number = *self.table_numbers.entry(name.to_owned()).or_insert(next);
        if number == next {
            self.unit.tables.push(Arc::clone(table));
        }
        Some(Binding::Array(ArrayRef::Table(number)))
    }

    /// Reports a name that stands for nothing.
    pub(crate) fn unknown_name(&mut self, name: &str, span: Span) -> Failed {
        let message =
            format!("`{name}` has no value: nothing of that name is assigned or declared before this line");
        let mut found = Diagnostic::error("unknown-name", span, message);
        let frame = self.frames.last().expect("the kernel's own frame is never popped");
        if let Some(near) = nearest(name, frame.names.keys().map(String::as_str)) {
            found = found.hint(format!("did you mean `{near}`?"));
        } else if self.calls.is_empty() {
            found = found.hint(format!("pass it with `GPU_PARAM {name} float[]`, or assign it first"));
        }
        // Reported once: from here on it counts as assigned.
        let failed = self.error(found);
        let var = self.new_var(name, Scalar::Float);
        self.assigned[var as usize] = true;
        self.frame().names.insert(name.to_owned(), Binding::Var(var));
        failed
    }

    /// The array of that name.
    pub(crate) fn array(&mut self, name: &Name) -> Checked<ArrayRef> {
        match self.resolve(&name.text) {
            Some(Binding::Array(array)) => Ok(array),
            Some(_) => {
                let message = format!("`{}` is a single value, not an array", name.text);
                Err(self.error(Diagnostic::error("type", name.span, message).expected(&["an array"])))
            }
            None => Err(self.unknown_name(&name.text, name.span)),
        }
    }

    /// The variable that a result goes to, made now if the name is new.
    pub(crate) fn target(&mut self, name: &Name, ty: Scalar) -> Checked<VarId> {
        match self.lookup(&name.text) {
            Some(Binding::Var(var)) => Ok(var),
            Some(Binding::Counter(_)) => {
                let message = format!("`{}` is a loop variable; only its loop changes it", name.text);
                Err(self.fail("assign", name.span, message))
            }
            Some(Binding::Scalar(_)) => {
                let message = format!("`{}` is a parameter and keeps its value", name.text);
                Err(self.error(
                    Diagnostic::error("assign", name.span, message)
                        .hint("choose another name for the result"),
                ))
            }
            Some(Binding::Array(_)) => {
                let message = format!("`{}` is an array: its elements are written one by one", name.text);
                Err(self.error(
                    Diagnostic::error("assign", name.span, message)
                        .hint(format!("name the element: `STORE value → {}[index]`", name.text)),
                ))
            }
            None => {
                let var = self.new_var(&name.text, ty);
                self.frame().names.insert(name.text.clone(), Binding::Var(var));
                Ok(var)
            }
        }
    }

    /// Assigns a value to a name.
    pub(crate) fn assign(&mut self, name: &Name, value: Expr, literal: bool) -> Checked<()> {
        let var = self.target(name, value.ty)?;
        let ty = self.unit.vars[var as usize].ty;
        let value = self.convert(value, literal, ty, name.span, &format!("`{}`", name.text))?;
        self.assigned[var as usize] = true;
        self.emit(Stmt::Assign { var, value });
        Ok(())
    }

    /// The element type and whether the length may differ from launch to launch.
    pub(crate) fn bind_params(&mut self, params: &[ast::Param]) {
        for (index, param) in params.iter().enumerate() {
            let number = u32::try_from(index).expect("parameters are bounded");
            let binding = match param.ty {
                ParamType::Scalar(_) => Binding::Scalar(number),
                ParamType::Array(_) => Binding::Array(ArrayRef::Param(number)),
            };
            if self.frame().names.insert(param.name.text.clone(), binding).is_some() {
                let message = format!("there are two parameters `{}`", param.name.text);
                self.fail("duplicate", param.name.span, message);
            }
        }
    }

    /// The value of a variable, if it has one on every way to here.
    pub(crate) fn read(&mut self, var: VarId, name: &str, span: Span) -> Checked<Expr> {
        let ty = self.unit.vars[var as usize].ty;
        if !self.assigned[var as usize] {
            let line = self.frames.last().and_then(|frame| frame.partial.get(&var)).copied();
            let message = match line {
                Some(line) => format!(
                    "`{name}` may have no value here: it is assigned in line {line}, but not on every way"
                ),
                None => format!("`{name}` has no value here"),
            };
            let failed = self.error(
                Diagnostic::error("uninitialised", span, message)
                    .hint(format!("assign `{name}` before the IF or FOR")),
            );
            self.assigned[var as usize] = true;
            return Err(failed);
        }
        Ok(Expr::new(ty, ExprKind::Var(var)))
    }
}
