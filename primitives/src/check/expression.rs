//! Types of expressions: operands are brought to one type, loads are taken out into statements of their own.

use super::lower::{Binding, Checked, Failed, Lower};
use crate::ast::{self, Binary, Name, Unary};
use crate::diagnostic::{Diagnostic, Span};
use crate::ir::{ArrayRef, BinaryOp, CompareOp, Expr, ExprKind, NO_SITE, Stmt, TRUSTED_SITE, UnaryOp};
use crate::types::{ParamType, Scalar};

/// A number as written, whose type is still open.
pub(crate) fn is_literal(expr: &ast::Expr) -> bool {
    match &expr.kind {
        ast::ExprKind::Int(_, unsigned) => !unsigned,
        ast::ExprKind::Float(_, double) => !double,
        ast::ExprKind::Unary(Unary::Negative, inner) => is_literal(inner),
        _ => false,
    }
}

/// A literal's value and whether it is whole.
fn literal_value(expr: &ast::Expr) -> Option<(f64, bool)> {
    match &expr.kind {
        #[expect(clippy::cast_precision_loss, reason = "the lexer allows 32 bits")]
        ast::ExprKind::Int(value, _) => Some((*value as f64, true)),
        ast::ExprKind::Float(value, _) => Some((*value, false)),
        ast::ExprKind::Unary(Unary::Negative, inner) => {
            literal_value(inner).map(|(value, whole)| (-value, whole))
        }
        _ => None,
    }
}

/// A literal as a constant of a type, when its value belongs to it.
pub(crate) fn literal_as(expr: &ast::Expr, ty: Scalar) -> Option<Expr> {
    let (value, whole) = literal_value(expr).filter(|_| is_literal(expr))?;
    constant(value, whole, ty)
}

/// A constant of a type, when the value belongs to it.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ranges are tested first")]
pub(crate) fn constant(value: f64, whole: bool, ty: Scalar) -> Option<Expr> {
    match ty {
        Scalar::Int if whole && (-2_147_483_648.0..=4_294_967_295.0).contains(&value) => {
            Some(Expr::int((value as i64 as u32).cast_signed()))
        }
        Scalar::Uint if whole && (0.0..=4_294_967_295.0).contains(&value) => Some(Expr::uint(value as u32)),
        Scalar::Float => Some(Expr::float(value as f32)),
        Scalar::Double => Some(Expr::new(Scalar::Double, ExprKind::Const(value.to_bits()))),
        _ => None,
    }
}

impl Lower<'_> {
    /// Lowers an expression whose type is its own choice.
    pub(crate) fn expression(&mut self, expr: &ast::Expr) -> Checked<Expr> {
        self.count(expr.span)?;
        match &expr.kind {
            ast::ExprKind::Int(value, unsigned) => {
                let bits = u32::try_from(*value).expect("the lexer allows 32 bits");
                Ok(if *unsigned { Expr::uint(bits) } else { Expr::int(bits.cast_signed()) })
            }
            ast::ExprKind::Float(value, double) => {
                let ty = if *double { Scalar::Double } else { Scalar::Float };
                Ok(constant(*value, false, ty).expect("floats take any value"))
            }
            ast::ExprKind::Bool(value) => Ok(Expr::bool(*value)),
            ast::ExprKind::Name(name) => self.named(name, expr.span),
            ast::ExprKind::Index(array, index) => {
                let array = self.array(array)?;
                let index = self.index(index)?;
                Ok(self.load(array, index))
            }
            ast::ExprKind::Field(inner, field) => self.field(inner, field),
            ast::ExprKind::Call(name, arguments) => self.call(name, arguments, expr.span),
            ast::ExprKind::Unary(op, inner) => self.unary(*op, inner),
            ast::ExprKind::Binary(op, left, right) => self.binary_expression(*op, left, right, expr.span),
        }
    }

    /// Lowers an expression that must have a type.
    pub(crate) fn expression_as(&mut self, expr: &ast::Expr, ty: Scalar, what: &str) -> Checked<Expr> {
        if let Some(constant) = literal_as(expr, ty) {
            return Ok(constant);
        }
        let value = self.expression(expr)?;
        self.convert(value, is_literal(expr), ty, expr.span, what)
    }

    /// An index: a whole number.
    pub(crate) fn index(&mut self, expr: &ast::Expr) -> Checked<Expr> {
        let index = self.expression(expr)?;
        match index.ty {
            Scalar::Int => Ok(index),
            // An index beyond 2^31 fails its bounds check as a negative one.
            Scalar::Uint => Ok(index.bits(Scalar::Int)),
            ty => Err(self.error(
                Diagnostic::error(
                    "type",
                    expr.span,
                    format!("an index is a whole number, not a {}", ty.name()),
                )
                .hint("convert it with int(…)"),
            )),
        }
    }

    /// A condition.
    pub(crate) fn condition(&mut self, expr: &ast::Expr) -> Checked<Expr> {
        let value = self.expression(expr)?;
        match value.ty {
            Scalar::Bool => Ok(value),
            ty if ty.is_integer() => Ok(Expr::compare(CompareOp::Ne, value, Expr::int(0).bits(ty))),
            ty => Err(self.error(
                Diagnostic::error(
                    "type",
                    expr.span,
                    format!("a condition is true or false, not a {}", ty.name()),
                )
                .hint("compare it, as in `x != 0.0`"),
            )),
        }
    }

    /// Brings a value to a type where nothing is lost by it.
    pub(crate) fn convert(
        &mut self,
        value: Expr,
        literal: bool,
        ty: Scalar,
        span: Span,
        what: &str,
    ) -> Checked<Expr> {
        let from = value.ty;
        if from == ty {
            return Ok(value);
        }
        let widens =
            (from.is_integer() && ty.is_floating()) || (from == Scalar::Float && ty == Scalar::Double);
        let fits = literal
            && from == Scalar::Int
            && ty == Scalar::Uint
            && value.constant_int().is_some_and(|v| v >= 0);
        if widens || fits {
            return Ok(value.cast(ty));
        }
        let message = format!("{what} is {}, the value is {}", ty.name(), from.name());
        let mut found = Diagnostic::error("type", span, message);
        if from.is_number() && ty.is_number() {
            found = found.hint(format!("convert it with {}(…)", ty.name()));
        } else if ty == Scalar::Pixel {
            found = found.hint("make a pixel of its components with pixel(r, g, b, a)");
        } else if from == Scalar::Pixel {
            found = found.hint("take a component: p.r, p.g, p.b or p.a");
        }
        Err(self.error(found))
    }

    /// Two operands of one type.
    pub(crate) fn pair(&mut self, left: &ast::Expr, right: &ast::Expr, span: Span) -> Checked<(Expr, Expr)> {
        let (a, b) = (self.expression(left), self.expression(right));
        let (a, b) = (a?, b?);
        if a.ty == b.ty {
            return Ok((a, b));
        }
        if let Some(constant) = literal_as(right, a.ty) {
            return Ok((a, constant));
        }
        if let Some(constant) = literal_as(left, b.ty) {
            return Ok((constant, b));
        }
        let ty = match (a.ty, b.ty) {
            (Scalar::Double, other) | (other, Scalar::Double) if other.is_number() => Scalar::Double,
            (Scalar::Float, other) | (other, Scalar::Float) if other.is_number() => Scalar::Float,
            (x, y) => {
                let message = format!("the operands are {} and {}", x.name(), y.name());
                let found = Diagnostic::error("type", span, message);
                return Err(self.error(if x.is_integer() && y.is_integer() {
                    found.hint("convert one with int(…) or uint(…)")
                } else {
                    found.hint("both must have one type")
                }));
            }
        };
        Ok((a.cast(ty), b.cast(ty)))
    }

    fn named(&mut self, name: &str, span: Span) -> Checked<Expr> {
        match self.resolve(name) {
            Some(Binding::Var(var)) if self.mistaken.contains(&var) => Err(Failed),
            Some(Binding::Var(var) | Binding::Counter(var)) => self.read(var, name, span),
            Some(Binding::Scalar(index)) => Ok(self.scalar(index)),
            Some(Binding::Array(array)) => match self.frames.last().and_then(|frame| frame.element.clone()) {
                Some(index) => Ok(self.load(array, index)),
                None => Err(self.error(
                    Diagnostic::error(
                        "type",
                        span,
                        format!("`{name}` is an array; one element is needed here"),
                    )
                    .hint(format!("name the element: `{name}[index]`")),
                )),
            },
            None => Err(self.unknown_name(name, span)),
        }
    }

    fn scalar(&self, index: u32) -> Expr {
        let ParamType::Scalar(element) = self.unit.params[index as usize].ty else {
            unreachable!("a scalar binding names a scalar parameter");
        };
        Expr::new(element.value(), ExprKind::Scalar(index))
    }

    /// A load as a statement; its value.
    pub(crate) fn load(&mut self, array: ArrayRef, index: Expr) -> Expr {
        let ty = self.unit.element(array).value();
        let var = self.new_var("", ty);
        self.assigned[var as usize] = true;
        let (site, line) = (if self.trusted() { TRUSTED_SITE } else { NO_SITE }, self.line);
        self.emit(Stmt::Load { var, array, index, site, line });
        Expr::var(ty, var)
    }

    fn field(&mut self, inner: &ast::Expr, field: &Name) -> Checked<Expr> {
        if let ast::ExprKind::Name(name) = &inner.kind
            && let Some(Binding::Array(array)) = self.resolve(name)
            && matches!(field.text.as_str(), "length" | "len")
        {
            return Ok(self.length(array));
        }
        let value = self.expression(inner)?;
        let shift = match field.text.as_str() {
            "r" | "red" => 0,
            "g" | "green" => 8,
            "b" | "blue" => 16,
            "a" | "alpha" => 24,
            // Rows of one column are their own value.
            "value" if value.ty != Scalar::Pixel => return Ok(value),
            _ => {
                let message = format!("a {} has no field `{}`", value.ty.name(), field.text);
                return Err(self.error(
                    Diagnostic::error("field", field.span, message)
                        .expected(&["r", "g", "b", "a", "value", "length"]),
                ));
            }
        };
        if value.ty != Scalar::Pixel {
            let message = format!("a {} has no field `{}`", value.ty.name(), field.text);
            return Err(self.fail("field", field.span, message));
        }
        Ok(component(value, shift))
    }

    pub(crate) fn length(&self, array: ArrayRef) -> Expr {
        match (array, self.unit.fixed_length(array)) {
            (ArrayRef::Param(index), _) => Expr::new(Scalar::Int, ExprKind::Len(index)),
            (_, length) => Expr::int(length.unwrap_or(0).cast_signed()),
        }
    }

    fn unary(&mut self, op: Unary, inner: &ast::Expr) -> Checked<Expr> {
        let value = self.expression(inner)?;
        let ok = match op {
            Unary::Negative => value.ty.is_number() && value.ty != Scalar::Uint,
            Unary::Not => {
                let condition = if value.ty.is_integer() { self.condition(inner)? } else { value };
                if condition.ty == Scalar::Bool {
                    return Ok(Expr::unary(UnaryOp::Not, condition));
                }
                return Err(self.fail("type", inner.span, format!("NOT of a {}", condition.ty.name())));
            }
            Unary::Invert => value.ty.is_integer(),
        };
        if !ok {
            let what = if op == Unary::Negative { "the negative" } else { "the complement" };
            return Err(self.fail("type", inner.span, format!("a {} has no {what}", value.ty.name())));
        }
        Ok(Expr::unary(if op == Unary::Negative { UnaryOp::Neg } else { UnaryOp::Invert }, value))
    }

    fn binary_expression(
        &mut self,
        op: Binary,
        left: &ast::Expr,
        right: &ast::Expr,
        span: Span,
    ) -> Checked<Expr> {
        let compare = match op {
            Binary::And | Binary::Or => return self.logical(op == Binary::And, left, right),
            Binary::Less => CompareOp::Lt,
            Binary::LessEqual => CompareOp::Le,
            Binary::Greater => CompareOp::Gt,
            Binary::GreaterEqual => CompareOp::Ge,
            Binary::Equal => CompareOp::Eq,
            Binary::NotEqual => CompareOp::Ne,
            _ => {
                let op = match op {
                    Binary::Add => BinaryOp::Add,
                    Binary::Sub => BinaryOp::Sub,
                    Binary::Mul => BinaryOp::Mul,
                    Binary::Div => BinaryOp::Div,
                    Binary::Mod => BinaryOp::Rem,
                    Binary::BitAnd => BinaryOp::And,
                    Binary::BitOr => BinaryOp::Or,
                    Binary::BitXor => BinaryOp::Xor,
                    Binary::Shl => BinaryOp::Shl,
                    _ => BinaryOp::Shr,
                };
                return self.arithmetic(op, left, right, span);
            }
        };
        let (a, b) = self.pair(left, right, span)?;
        let ordered = a.ty.is_number() || matches!(compare, CompareOp::Eq | CompareOp::Ne);
        if !ordered {
            return Err(self.fail("type", span, format!("values of type {} have no order", a.ty.name())));
        }
        Ok(Expr::compare(compare, a, b))
    }

    /// AND and OR: the right side is evaluated only where it decides, as far as it could fault.
    fn logical(&mut self, and: bool, left: &ast::Expr, right: &ast::Expr) -> Checked<Expr> {
        let a = self.condition(left)?;
        let before = std::mem::take(&mut self.out);
        let b = self.condition(right);
        let between = std::mem::replace(&mut self.out, before);
        let b = b?;
        let op = if and { BinaryOp::And } else { BinaryOp::Or };
        if between.is_empty() {
            return Ok(Expr::binary(op, a, b));
        }
        let var = self.new_var("", Scalar::Bool);
        self.assigned[var as usize] = true;
        self.emit(Stmt::Assign { var, value: a });
        let result = Expr::var(Scalar::Bool, var);
        let condition = if and { result.clone() } else { Expr::unary(UnaryOp::Not, result.clone()) };
        let mut then = between;
        then.push(Stmt::Assign { var, value: b });
        self.emit(Stmt::If { condition, then, otherwise: Vec::new(), line: self.line });
        Ok(result)
    }

    pub(crate) fn arithmetic(
        &mut self,
        op: BinaryOp,
        left: &ast::Expr,
        right: &ast::Expr,
        span: Span,
    ) -> Checked<Expr> {
        if matches!(op, BinaryOp::Shl | BinaryOp::Shr | BinaryOp::Rotr) {
            let value = self.expression(left)?;
            let count = self.expression(right)?;
            if !value.ty.is_integer() || !count.ty.is_integer() {
                return Err(self.fail("type", span, "only whole numbers are shifted".to_owned()));
            }
            return Ok(Expr::binary(op, value, count.bits(Scalar::Int)));
        }
        let (a, b) = self.pair(left, right, span)?;
        let bits = matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Xor);
        let fits = match a.ty {
            Scalar::Bool => bits,
            Scalar::Int | Scalar::Uint => true,
            Scalar::Float | Scalar::Double => !bits && op != BinaryOp::Rem,
            Scalar::Pixel => false,
        };
        if !fits {
            let message = format!("this operation is not defined for {}", a.ty.name());
            let found = Diagnostic::error("type", span, message);
            return Err(self.error(match (a.ty, op) {
                (Scalar::Pixel, _) => found.hint("compute with the components p.r, p.g, p.b, p.a"),
                (_, BinaryOp::Rem) => found.hint("the remainder of floats is x - floor(x / y) * y"),
                _ => found,
            }));
        }
        self.quotient(op, a, b, right.span)
    }

    /// A binary operation with its divisor checked.
    pub(crate) fn quotient(&mut self, op: BinaryOp, a: Expr, b: Expr, span: Span) -> Checked<Expr> {
        if matches!(op, BinaryOp::Div | BinaryOp::Rem) && a.ty.is_integer() {
            match b.constant_int() {
                Some(0) => return Err(self.fail("division", span, "division by zero".to_owned())),
                Some(_) => {}
                None => {
                    let b = self.reusable(b);
                    let (site, line) = (NO_SITE, self.line);
                    self.emit(Stmt::Divisor { value: b.clone(), site, line });
                    return Ok(Expr::binary(op, a, b));
                }
            }
        }
        Ok(Expr::binary(op, a, b))
    }

    /// An expression that can be used twice without being computed twice.
    pub(crate) fn reusable(&mut self, expr: Expr) -> Expr {
        match expr.kind {
            ExprKind::Const(_)
            | ExprKind::Scalar(_)
            | ExprKind::Len(_)
            | ExprKind::Special(_)
            | ExprKind::Var(_) => expr,
            _ => self.temporary(expr),
        }
    }

    pub(crate) fn wrong_count(&mut self, name: &str, span: Span, expected: &str, found: usize) -> Failed {
        self.fail("arguments", span, format!("`{name}` takes {expected}, not {found}"))
    }
}

/// A component of a pixel, 0 to 255, as `int`.
pub(crate) fn component(pixel: Expr, shift: i32) -> Expr {
    let bits = pixel.bits(Scalar::Uint);
    let moved = Expr::binary(BinaryOp::Shr, bits, Expr::int(shift));
    let masked = if shift == 24 { moved } else { Expr::binary(BinaryOp::And, moved, Expr::uint(255)) };
    masked.bits(Scalar::Int)
}
