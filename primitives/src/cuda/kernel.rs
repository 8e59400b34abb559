//! A unit as a CUDA C function.

use std::fmt::Write as _;

use crate::arith;
use crate::ir::{
    ArrayRef, AtomicOp, BinaryOp, CompareOp, Expr, ExprKind, SiteId, SiteKind, Special, Stmt, TRUSTED_SITE,
    UnaryOp, Unit,
};
use crate::types::{Element, ParamType, Scalar};

/// The C type in which an element is stored.
pub(super) fn storage(element: Element) -> &'static str {
    match element {
        Element::Byte => "unsigned char",
        Element::Half => "unsigned short",
        Element::Int => "int",
        Element::Uint | Element::Pixel => "unsigned",
        Element::Float => "float",
        Element::Double => "double",
    }
}

fn ty(ty: Scalar) -> &'static str {
    match ty {
        Scalar::Bool => "bool",
        Scalar::Int => "int",
        Scalar::Uint | Scalar::Pixel => "unsigned",
        Scalar::Float => "float",
        Scalar::Double => "double",
    }
}

/// The parameters as they are declared.
fn parameters(unit: &Unit) -> String {
    let mut list = Vec::new();
    for param in &unit.params {
        match param.ty {
            ParamType::Array(element) => {
                list.push(format!("{} *p_{}, unsigned n_{}", storage(element), param.name, param.name));
            }
            ParamType::Scalar(element) => list.push(format!("{} p_{}", storage(element), param.name)),
        }
    }
    list.push("unsigned threads, unsigned first, px_fault *fault".to_owned());
    list.join(", ")
}

/// The parameters as they are passed on.
fn arguments(unit: &Unit) -> String {
    let mut list = Vec::new();
    for param in &unit.params {
        match param.ty {
            ParamType::Array(_) => list.push(format!("p_{0}, n_{0}", param.name)),
            ParamType::Scalar(_) => list.push(format!("p_{}", param.name)),
        }
    }
    list.push("threads, first, fault".to_owned());
    list.join(", ")
}

/// The function or functions of a unit: with threads that work alone, the body is for the host as well.
pub(super) fn function(unit: &Unit, alone: bool) -> String {
    let mut writer = Writer { unit, out: String::new(), depth: 1 };
    for table in &unit.tables {
        let values: Vec<String> = table.bits.iter().map(|bits| literal(table.element, *bits)).collect();
        let _ = writeln!(
            writer.out,
            "\n__constant__ {} table_{}_{}[{}] = {{{}}};",
            storage(table.element),
            unit.name,
            table.name,
            table.bits.len(),
            values.join(", ")
        );
    }
    let name = &unit.name;
    let bound = unit.block;
    if alone {
        let _ = writeln!(
            writer.out,
            "\n__host__ __device__ static void body_{name}(unsigned block, unsigned local, unsigned blocks, {}) {{",
            parameters(unit)
        );
    } else {
        let _ = writeln!(
            writer.out,
            "\n__global__ void __launch_bounds__({bound}) px_{name}({}) {{",
            parameters(unit)
        );
        writer.line("const unsigned block = blockIdx.x, local = threadIdx.x, blocks = gridDim.x;");
    }
    writer.line(&format!("const unsigned thread = block * {bound}u + local + first;"));
    if !unit.whole_blocks {
        writer.line("if (thread - first >= threads) return;");
    }
    writer.line("(void)blocks; (void)fault; (void)thread;");
    for (index, shared) in unit.shared.iter().enumerate() {
        writer.line(&format!(
            "__shared__ {} s{index}_{}[{}];",
            storage(shared.element),
            shared.name,
            shared.length
        ));
    }
    writer.declarations();
    writer.block(&unit.body);
    writer.out.push_str("}\n");
    if alone {
        let _ = writeln!(
            writer.out,
            "\n__global__ void __launch_bounds__({bound}) px_{name}({}) {{\n    body_{name}(blockIdx.x, threadIdx.x, gridDim.x, {});\n}}",
            parameters(unit),
            arguments(unit)
        );
    }
    writer.out
}

/// A stored element as a C literal.
fn literal(element: Element, bits: u64) -> String {
    match element {
        Element::Float => constant(Scalar::Float, bits),
        Element::Double => constant(Scalar::Double, bits),
        Element::Int => constant(Scalar::Int, bits),
        _ => format!("{}u", arith::low(bits)),
    }
}

fn constant(ty: Scalar, bits: u64) -> String {
    match ty {
        Scalar::Bool => (bits != 0).to_string(),
        Scalar::Int if arith::int(bits) == i32::MIN => "(-2147483647 - 1)".to_owned(),
        Scalar::Int => arith::int(bits).to_string(),
        Scalar::Uint | Scalar::Pixel => format!("{}u", arith::low(bits)),
        Scalar::Float if arith::float(bits).is_finite() => format!("{:?}f", arith::float(bits)),
        Scalar::Float => format!("px_float({:#x}u)", arith::low(bits)),
        Scalar::Double if f64::from_bits(bits).is_finite() => format!("{:?}", f64::from_bits(bits)),
        Scalar::Double => format!("px_double({bits:#x}ull)"),
    }
}

struct Writer<'a> {
    unit: &'a Unit,
    out: String,
    depth: usize,
}

impl Writer<'_> {
    fn line(&mut self, text: &str) {
        for _ in 0..self.depth {
            self.out.push_str("    ");
        }
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn var(&self, var: u32) -> String {
        let name = &self.unit.vars[var as usize].name;
        if name.is_empty() { format!("t{var}") } else { format!("{name}_{var}") }
    }

    /// Every variable that is assigned somewhere, by type.
    fn declarations(&mut self) {
        let mut targets: Vec<u32> = Vec::new();
        crate::ir::visit_statements(&self.unit.body, &mut |stmt| targets.extend(stmt.target()));
        targets.sort_unstable();
        targets.dedup();
        for kind in [Scalar::Bool, Scalar::Int, Scalar::Uint, Scalar::Pixel, Scalar::Float, Scalar::Double] {
            let names: Vec<String> = targets
                .iter()
                .filter(|var| self.unit.vars[**var as usize].ty == kind)
                .map(|var| self.var(*var))
                .collect();
            for names in names.chunks(12) {
                self.line(&format!("{} {};", ty(kind), names.join(", ")));
            }
        }
    }

    fn block(&mut self, body: &[Stmt]) {
        for stmt in body {
            self.statement(stmt);
        }
    }

    fn nested(&mut self, body: &[Stmt]) {
        self.depth += 1;
        self.block(body);
        self.depth -= 1;
    }

    fn array(&self, array: ArrayRef) -> String {
        match array {
            ArrayRef::Param(index) => format!("p_{}", self.unit.params[index as usize].name),
            ArrayRef::Shared(index) => format!("s{index}_{}", self.unit.shared[index as usize].name),
            ArrayRef::Table(index) => {
                format!("table_{}_{}", self.unit.name, self.unit.tables[index as usize].name)
            }
        }
    }

    fn length(&self, array: ArrayRef) -> String {
        match (array, self.unit.fixed_length(array)) {
            (ArrayRef::Param(index), _) => format!("n_{}", self.unit.params[index as usize].name),
            (_, length) => format!("{}u", length.unwrap_or(0)),
        }
    }

    /// Whether a site's check is left out.
    fn skipped(&self, site: SiteId) -> bool {
        site == TRUSTED_SITE || {
            let known = &self.unit.sites[site as usize];
            known.proven || (self.unit.unchecked && known.kind != SiteKind::Require)
        }
    }

    fn check(&mut self, site: SiteId, array: ArrayRef, index: &Expr, line: u32) {
        if self.skipped(site) {
            return;
        }
        let (at, length) = (self.expr(index), self.length(array));
        self.line(&format!(
            "if ((unsigned){at} >= {length}) {{ px_report(fault, {line}, {at}, {length}, thread); return; }}"
        ));
    }

    fn statement(&mut self, stmt: &Stmt) {
        match stmt {
            Stmt::Assign { var, value } => {
                let text = format!("{} = {};", self.var(*var), self.expr(value));
                self.line(&text);
            }
            Stmt::Load { var, array, index, site, line } => {
                self.check(*site, *array, index, *line);
                let place = format!("{}[{}]", self.array(*array), self.expr(index));
                let value = match self.unit.element(*array) {
                    Element::Half => format!("px_h2f({place})"),
                    _ => place,
                };
                self.line(&format!("{} = {value};", self.var(*var)));
            }
            Stmt::Store { array, index, value, site, line } => {
                self.check(*site, *array, index, *line);
                let value = self.expr(value);
                let value = match self.unit.element(*array) {
                    Element::Half => format!("px_f2h({value})"),
                    Element::Byte => format!("(unsigned char){value}"),
                    _ => value,
                };
                self.line(&format!("{}[{}] = {value};", self.array(*array), self.expr(index)));
            }
            Stmt::Atomic(atomic) => {
                self.check(atomic.site, atomic.array, &atomic.index, atomic.line);
                let name = match atomic.op {
                    AtomicOp::Add => "atomicAdd",
                    AtomicOp::Min => "atomicMin",
                    AtomicOp::Max => "atomicMax",
                    AtomicOp::And => "atomicAnd",
                    AtomicOp::Or => "atomicOr",
                    AtomicOp::Xor => "atomicXor",
                    AtomicOp::Exchange => "atomicExch",
                    AtomicOp::CompareExchange => "atomicCAS",
                };
                let compare =
                    atomic.compare.as_ref().map_or(String::new(), |e| format!("{}, ", self.expr(e)));
                let old = atomic.old.map_or(String::new(), |var| format!("{} = ", self.var(var)));
                let place = format!("&{}[{}]", self.array(atomic.array), self.expr(&atomic.index));
                self.line(&format!("{old}{name}({place}, {compare}{});", self.expr(&atomic.value)));
            }
            Stmt::Divisor { value, site, line } if !self.skipped(*site) => {
                let value = self.expr(value);
                self.line(&format!(
                    "if ({value} == 0) {{ px_report(fault, {line}, 0, 0, thread); return; }}"
                ));
            }
            Stmt::Require { condition, site, line } if !self.skipped(*site) => {
                let condition = self.expr(condition);
                self.line(&format!(
                    "if (!{condition}) {{ px_report(fault, {line}, 0, 0, thread); return; }}"
                ));
            }
            Stmt::Divisor { .. } | Stmt::Require { .. } => {}
            Stmt::If { condition, then, otherwise, .. } => {
                let condition = self.expr(condition);
                self.line(&format!("if ({condition}) {{"));
                self.nested(then);
                if !otherwise.is_empty() {
                    self.line("} else {");
                    self.nested(otherwise);
                }
                self.line("}");
            }
            Stmt::For { var, from, to, step, body, .. } => {
                let (var, from, to, step) = (self.var(*var), self.expr(from), self.expr(to), self.expr(step));
                if step == "1" {
                    self.line(&format!("for ({var} = {from}; {var} < {to}; {var}++) {{"));
                } else {
                    // What is left is compared, so that the sum cannot wrap past the end.
                    self.line(&format!(
                        "for ({var} = {from}; {var} < {to}; {var} = (unsigned)px_sub({to}, {var}) > (unsigned){step} ? {var} + {step} : {to}) {{"
                    ));
                }
                self.nested(body);
                self.line("}");
            }
            Stmt::Barrier { .. } => self.line("__syncthreads();"),
            Stmt::LoadRange { .. } => unreachable!("expanded by the checker"),
        }
    }

    fn expr(&self, expr: &Expr) -> String {
        match &expr.kind {
            ExprKind::Const(bits) => constant(expr.ty, *bits),
            ExprKind::Var(var) => self.var(*var),
            ExprKind::Special(special) => match special {
                Special::Thread => "(int)thread",
                Special::Local => "(int)local",
                Special::Block => "(int)block",
                Special::Blocks => "(int)blocks",
                Special::Threads => "(int)threads",
            }
            .to_owned(),
            ExprKind::Scalar(index) => {
                let param = &self.unit.params[*index as usize];
                match param.ty {
                    ParamType::Scalar(Element::Half) => format!("px_h2f(p_{})", param.name),
                    _ => format!("p_{}", param.name),
                }
            }
            ExprKind::Len(index) => format!("(int)n_{}", self.unit.params[*index as usize].name),
            ExprKind::Unary(op, a) => self.unary(*op, expr.ty, a),
            ExprKind::Binary(op, a, b) => self.binary(*op, expr.ty, a, b),
            ExprKind::Compare(op, a, b) => {
                let op = match op {
                    CompareOp::Lt => "<",
                    CompareOp::Le => "<=",
                    CompareOp::Gt => ">",
                    CompareOp::Ge => ">=",
                    CompareOp::Eq => "==",
                    CompareOp::Ne => "!=",
                };
                format!("({} {op} {})", self.expr(a), self.expr(b))
            }
            ExprKind::Fma(three) => {
                let [a, b, c] = [0, 1, 2].map(|i| self.expr(&three[i]));
                match expr.ty {
                    Scalar::Float => format!("fmaf({a}, {b}, {c})"),
                    Scalar::Double => format!("fma({a}, {b}, {c})"),
                    Scalar::Int => format!("px_add(px_mul({a}, {b}), {c})"),
                    _ => format!("({a} * {b} + {c})"),
                }
            }
            ExprKind::Select(three) => {
                let [c, a, b] = [0, 1, 2].map(|i| self.expr(&three[i]));
                format!("({c} ? {a} : {b})")
            }
            ExprKind::Cast(a) => self.cast(a, expr.ty),
            ExprKind::Bits(a) => {
                let value = self.expr(a);
                match (a.ty, expr.ty) {
                    (Scalar::Float, Scalar::Int) => format!("(int)px_bits({value})"),
                    (Scalar::Float, _) => format!("px_bits({value})"),
                    (_, Scalar::Float) => format!("px_float((unsigned){value})"),
                    (_, to) => format!("({}){value}", ty(to)),
                }
            }
        }
    }

    fn unary(&self, op: UnaryOp, ty: Scalar, a: &Expr) -> String {
        let a = self.expr(a);
        let suffix = if ty == Scalar::Float { "f" } else { "" };
        match op {
            UnaryOp::Neg if ty == Scalar::Int => format!("px_neg({a})"),
            UnaryOp::Neg => format!("(-{a})"),
            UnaryOp::Not => format!("(!{a})"),
            UnaryOp::Invert => format!("(~{a})"),
            UnaryOp::Abs if ty == Scalar::Int => format!("px_abs({a})"),
            UnaryOp::Abs => format!("fabs{suffix}({a})"),
            UnaryOp::Sqrt => format!("sqrt{suffix}({a})"),
            UnaryOp::Floor => format!("floor{suffix}({a})"),
            UnaryOp::Ceil => format!("ceil{suffix}({a})"),
            UnaryOp::Round => format!("rint{suffix}({a})"),
        }
    }

    fn binary(&self, op: BinaryOp, ty: Scalar, a: &Expr, b: &Expr) -> String {
        let small = b.constant_int().is_some_and(|n| (0..32).contains(&n));
        let (a, b, divides) =
            (self.expr(a), self.expr(b), b.constant_int().is_some_and(|n| n != 0 && n != -1));
        let call = |name: &str| format!("{name}({a}, {b})");
        let infix = |op: &str| format!("({a} {op} {b})");
        match (op, ty) {
            (BinaryOp::Add, Scalar::Int) => call("px_add"),
            (BinaryOp::Sub, Scalar::Int) => call("px_sub"),
            (BinaryOp::Mul, Scalar::Int) => call("px_mul"),
            (BinaryOp::Mul, Scalar::Float) => call("px_fmul"),
            (BinaryOp::Mul, Scalar::Double) => call("px_dmul"),
            (BinaryOp::Div | BinaryOp::Rem, Scalar::Int | Scalar::Uint) if divides => {
                infix(if op == BinaryOp::Div { "/" } else { "%" })
            }
            (BinaryOp::Div, Scalar::Int) => call("px_div"),
            (BinaryOp::Rem, Scalar::Int) => call("px_rem"),
            (BinaryOp::Div, Scalar::Uint) => call("px_divu"),
            (BinaryOp::Rem, Scalar::Uint) => call("px_remu"),
            (BinaryOp::Add, _) => infix("+"),
            (BinaryOp::Sub, _) => infix("-"),
            (BinaryOp::Mul, _) => infix("*"),
            (BinaryOp::Div | BinaryOp::Rem, _) => infix("/"),
            (BinaryOp::Min, Scalar::Float) => call("fminf"),
            (BinaryOp::Max, Scalar::Float) => call("fmaxf"),
            (BinaryOp::Min, Scalar::Double) => call("fmin"),
            (BinaryOp::Max, Scalar::Double) => call("fmax"),
            (BinaryOp::Min, Scalar::Int) => call("px_mini"),
            (BinaryOp::Max, Scalar::Int) => call("px_maxi"),
            (BinaryOp::Min, _) => call("px_minu"),
            (BinaryOp::Max, _) => call("px_maxu"),
            (BinaryOp::And, _) => infix("&"),
            (BinaryOp::Or, _) => infix("|"),
            (BinaryOp::Xor, _) => infix("^"),
            (BinaryOp::Shl, Scalar::Int) => format!("(int)px_shl((unsigned){a}, {b})"),
            (BinaryOp::Shr, Scalar::Int) if small => infix(">>"),
            (BinaryOp::Shr, Scalar::Int) => call("px_sar"),
            (BinaryOp::Shl, _) if small => infix("<<"),
            (BinaryOp::Shl, _) => call("px_shl"),
            (BinaryOp::Shr, _) if small => infix(">>"),
            (BinaryOp::Shr, _) => call("px_shr"),
            (BinaryOp::Rotr, _) => call("px_rotr"),
        }
    }

    fn cast(&self, a: &Expr, to: Scalar) -> String {
        let value = self.expr(a);
        match (a.ty, to) {
            (Scalar::Float, Scalar::Int) => format!("px_f2i({value})"),
            (Scalar::Float, Scalar::Uint) => format!("px_f2u({value})"),
            (Scalar::Double, Scalar::Int) => format!("px_d2i({value})"),
            (Scalar::Double, Scalar::Uint) => format!("px_d2u({value})"),
            _ => format!("({}){value}", ty(to)),
        }
    }
}
