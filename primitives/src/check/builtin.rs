//! Calls: the operations that have names, the library's functions, and the program's own, all expanded in place.

use std::collections::HashMap;

use super::expression::literal_as;
use super::lower::{Binding, Checked, Frame, Lower};
use crate::ast::{self, Name};
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::ir::{BinaryOp, Expr, ExprKind, Stmt, UnaryOp};
use crate::types::{ParamType, Scalar};

/// Functions that are operations of the machine.
const BUILTINS: [&str; 24] = [
    "min", "max", "abs", "neg", "sqrt", "rsqrt", "floor", "ceil", "round", "fma", "select", "clamp", "int",
    "uint", "float", "double", "pixel", "rgb", "len", "rotr", "bits", "as_float", "as_pixel", "gradient",
];

/// Calls within calls: more is certainly a mistake.
const MAX_CALLS: usize = 32;

impl Lower<'_> {
    pub(crate) fn call(&mut self, name: &Name, arguments: &[ast::Expr], span: Span) -> Checked<Expr> {
        self.count(span)?;
        if let Some(function) = self.library.functions.get(name.text.as_str()) {
            return self.expand_function(function, arguments, span);
        }
        let count = |this: &mut Self, least: usize, most: usize| -> Checked<()> {
            if (least..=most).contains(&arguments.len()) {
                return Ok(());
            }
            let expected = if least == most {
                format!("{least} arguments")
            } else {
                format!("{least} to {most} arguments")
            };
            Err(this.wrong_count(&name.text, span, &expected, arguments.len()))
        };
        match name.text.as_str() {
            "min" | "max" => {
                count(self, 2, 2)?;
                let (a, b) = self.pair(&arguments[0], &arguments[1], span)?;
                self.number(&a, span)?;
                let op = if name.text == "min" { BinaryOp::Min } else { BinaryOp::Max };
                Ok(Expr::binary(op, a, b))
            }
            "clamp" => {
                count(self, 3, 3)?;
                let value = self.expression(&arguments[0])?;
                self.number(&value, span)?;
                let low = self.expression_as(&arguments[1], value.ty, "the lower bound")?;
                let high = self.expression_as(&arguments[2], value.ty, "the upper bound")?;
                Ok(Expr::binary(BinaryOp::Min, Expr::binary(BinaryOp::Max, value, low), high))
            }
            "abs" | "neg" => {
                count(self, 1, 1)?;
                let value = self.expression(&arguments[0])?;
                self.number(&value, span)?;
                match (name.text.as_str(), value.ty) {
                    ("abs", Scalar::Uint) => Ok(value),
                    ("neg", Scalar::Uint) => {
                        Err(self.fail("type", span, "a uint has no negative".to_owned()))
                    }
                    ("abs", _) => Ok(Expr::unary(UnaryOp::Abs, value)),
                    _ => Ok(Expr::unary(UnaryOp::Neg, value)),
                }
            }
            "sqrt" | "rsqrt" | "floor" | "ceil" | "round" => {
                count(self, 1, 1)?;
                let value = self.floating(&arguments[0])?;
                Ok(match name.text.as_str() {
                    "sqrt" => Expr::unary(UnaryOp::Sqrt, value),
                    "rsqrt" => {
                        let one = if value.ty == Scalar::Double {
                            1.0f64.to_bits()
                        } else {
                            u64::from(1.0f32.to_bits())
                        };
                        let root = Expr::unary(UnaryOp::Sqrt, value);
                        Expr::binary(BinaryOp::Div, Expr::new(root.ty, ExprKind::Const(one)), root)
                    }
                    "floor" => Expr::unary(UnaryOp::Floor, value),
                    "ceil" => Expr::unary(UnaryOp::Ceil, value),
                    _ => Expr::unary(UnaryOp::Round, value),
                })
            }
            "fma" => {
                count(self, 3, 3)?;
                let (a, b) = self.pair(&arguments[0], &arguments[1], span)?;
                self.number(&a, span)?;
                let c = self.expression_as(&arguments[2], a.ty, "the third operand")?;
                Ok(Expr::new(a.ty, ExprKind::Fma(Box::new([a, b, c]))))
            }
            "select" => {
                count(self, 3, 3)?;
                let condition = self.condition(&arguments[0])?;
                let (a, b) = self.pair(&arguments[1], &arguments[2], span)?;
                Ok(Expr::select(condition, a, b))
            }
            "int" | "uint" | "float" | "double" => {
                count(self, 1, 1)?;
                self.conversion(&name.text, &arguments[0], span)
            }
            "pixel" | "rgb" => {
                count(self, 3, 4)?;
                self.pixel(arguments)
            }
            "len" => {
                count(self, 1, 1)?;
                let ast::ExprKind::Name(array) = &arguments[0].kind else {
                    return Err(self.fail("type", span, "len takes an array's name".to_owned()));
                };
                let array = self.array(&Name { text: array.clone(), span: arguments[0].span })?;
                Ok(self.length(array))
            }
            "rotr" => {
                count(self, 2, 2)?;
                let value = self.expression_as(&arguments[0], Scalar::Uint, "the value")?;
                let turn = self.expression(&arguments[1])?;
                if !turn.ty.is_integer() {
                    return Err(self.fail("type", span, "bits are turned by a whole number".to_owned()));
                }
                Ok(Expr::binary(BinaryOp::Rotr, value, turn.bits(Scalar::Int)))
            }
            "bits" | "as_float" | "as_pixel" => {
                count(self, 1, 1)?;
                let value = self.expression(&arguments[0])?;
                if matches!(value.ty, Scalar::Double | Scalar::Bool) {
                    return Err(self.fail("type", span, format!("a {} has not 32 bits", value.ty.name())));
                }
                Ok(value.bits(match name.text.as_str() {
                    "bits" => Scalar::Uint,
                    "as_float" => Scalar::Float,
                    _ => Scalar::Pixel,
                }))
            }
            _ => Err(self.unknown_function(name)),
        }
    }

    fn unknown_function(&mut self, name: &Name) -> super::lower::Failed {
        let message = format!("there is no function `{}`", name.text);
        let found = Diagnostic::error("unknown-function", name.span, message);
        let known: Vec<&str> = BUILTINS.into_iter().chain(self.library.functions.keys().copied()).collect();
        let found = match nearest(&name.text, known) {
            Some(near) => found.hint(format!("did you mean `{near}`?")),
            None => found
                .hint(format!("define it: `GPU_FUNCTION {}(x int, y int) → pixel:` … `GPU_END`", name.text)),
        };
        self.error(found)
    }

    fn number(&mut self, value: &Expr, span: Span) -> Checked<()> {
        if value.ty.is_number() {
            return Ok(());
        }
        Err(self.fail("type", span, format!("a number is needed here, not a {}", value.ty.name())))
    }

    /// A float or double; whole numbers become floats.
    fn floating(&mut self, expr: &ast::Expr) -> Checked<Expr> {
        let value = self.expression(expr)?;
        self.number(&value, expr.span)?;
        Ok(if value.ty.is_integer() { value.cast(Scalar::Float) } else { value })
    }

    fn conversion(&mut self, to: &str, argument: &ast::Expr, span: Span) -> Checked<Expr> {
        let ty = match to {
            "int" => Scalar::Int,
            "uint" => Scalar::Uint,
            "float" => Scalar::Float,
            _ => Scalar::Double,
        };
        if let Some(value) = literal_as(argument, ty) {
            return Ok(value);
        }
        let value = self.expression(argument)?;
        match (value.ty, ty) {
            (Scalar::Int, Scalar::Uint) | (Scalar::Uint, Scalar::Int) | (Scalar::Pixel, Scalar::Uint) => {
                Ok(value.bits(ty))
            }
            (Scalar::Pixel, _) => Err(self.fail(
                "type",
                span,
                format!("a pixel is no {to}: take a component such as p.r, or luma(p)"),
            )),
            _ => Ok(value.cast(ty)),
        }
    }

    /// `pixel(r, g, b[, a])`: whole numbers are clamped to 0..255, floats rounded first.
    fn pixel(&mut self, arguments: &[ast::Expr]) -> Checked<Expr> {
        let mut bits: Option<Expr> = None;
        for (index, argument) in arguments.iter().enumerate() {
            let value = self.expression(argument)?;
            let value = match value.ty {
                Scalar::Float | Scalar::Double => Expr::unary(UnaryOp::Round, value).cast(Scalar::Int),
                Scalar::Int => value,
                Scalar::Uint => Expr::binary(BinaryOp::Min, value, Expr::uint(255)).bits(Scalar::Int),
                ty => {
                    return Err(self.fail(
                        "type",
                        argument.span,
                        format!("a component is a number, not a {}", ty.name()),
                    ));
                }
            };
            let clamped = if is_byte(&value) {
                value
            } else {
                Expr::binary(BinaryOp::Min, Expr::binary(BinaryOp::Max, value, Expr::int(0)), Expr::int(255))
            };
            let shift = i32::try_from(index * 8).expect("four components");
            let part = Expr::binary(BinaryOp::Shl, clamped.bits(Scalar::Uint), Expr::int(shift));
            bits = Some(match bits {
                None => part,
                Some(bits) => Expr::binary(BinaryOp::Or, bits, part),
            });
        }
        let mut bits = bits.expect("three components at least");
        if arguments.len() == 3 {
            bits = Expr::binary(BinaryOp::Or, bits, Expr::uint(0xff00_0000));
        }
        Ok(bits.bits(Scalar::Pixel))
    }

    /// Expands a function in place: scalars are copied, arrays bound.
    fn expand_function(
        &mut self,
        function: &ast::Function,
        arguments: &[ast::Expr],
        span: Span,
    ) -> Checked<Expr> {
        let name = &function.name.text;
        if self.calls.iter().any(|call| call == name) {
            let message = format!("`{name}` calls itself");
            return Err(self.error(Diagnostic::error("recursion", span, message).hint("use a FOR loop")));
        }
        if self.calls.len() >= MAX_CALLS {
            return Err(self.fail(
                "nesting",
                span,
                format!("calls are nested deeper than {MAX_CALLS} levels"),
            ));
        }
        if arguments.len() != function.params.len() {
            let expected = format!("{} arguments", function.params.len());
            return Err(self.wrong_count(name, span, &expected, arguments.len()));
        }
        let mut names = HashMap::new();
        for (param, argument) in function.params.iter().zip(arguments) {
            let binding = match param.ty {
                ParamType::Array(element) => {
                    let ast::ExprKind::Name(array) = &argument.kind else {
                        let message = format!("`{}` of `{name}` is an array", param.name.text);
                        return Err(self.fail("type", argument.span, message));
                    };
                    let array = self.array(&Name { text: array.clone(), span: argument.span })?;
                    let given = self.unit.element(array);
                    if given != element {
                        let message = format!(
                            "`{}` of `{name}` is an array of {}, not of {}",
                            param.name.text,
                            element.name(),
                            given.name()
                        );
                        return Err(self.fail("type", argument.span, message));
                    }
                    Binding::Array(array)
                }
                ParamType::Scalar(element) => {
                    let what = format!("`{}` of `{name}`", param.name.text);
                    let value = self.expression_as(argument, element.value(), &what)?;
                    let ExprKind::Var(var) = self.temporary(value).kind else {
                        unreachable!("a temporary is a variable");
                    };
                    Binding::Var(var)
                }
            };
            names.insert(param.name.text.clone(), binding);
        }
        self.calls.push(name.clone());
        let line = self.line;
        self.frames.push(Frame { names, trusted: function.trusted, ..Frame::default() });
        let result = self.function_body(function);
        self.frames.pop();
        self.line = line;
        self.calls.pop();
        result
    }

    fn function_body(&mut self, function: &ast::Function) -> Checked<Expr> {
        // Faults inside of the library belong to the line that called it.
        let line = self.line;
        let mut result = None;
        for (index, statement) in function.body.iter().enumerate() {
            if !function.trusted {
                self.line = statement.span.line;
            }
            if let ast::StatementKind::Return(value) = &statement.kind {
                let what = format!("the result of `{}`", function.name.text);
                result = Some(self.expression_as(value, function.result.value(), &what)?);
                if let Some(after) = function.body.get(index + 1) {
                    return Err(self.fail("syntax", after.span, "nothing follows RETURN".to_owned()));
                }
            } else {
                // What fails has been reported; a value that is missing for it is no second mistake.
                let _ = self.statement(statement);
            }
        }
        self.line = line;
        match result {
            Some(value) => Ok(self.temporary(value)),
            None => {
                let message = format!("`{}` does not end with RETURN", function.name.text);
                Err(self.fail("syntax", function.name.span, message))
            }
        }
    }

    /// `REQUIRE condition`.
    pub(crate) fn require(&mut self, condition: &ast::Expr) -> Checked<()> {
        let condition = self.condition(condition)?;
        if condition.kind != ExprKind::Const(1) {
            self.emit(Stmt::Require { condition, site: crate::ir::NO_SITE, line: self.line });
        }
        Ok(())
    }

    /// The word form of a function: a bare name of an array argument means the array.
    pub(crate) fn apply(
        &mut self,
        name: &Name,
        function: &str,
        operands: &[ast::Expr],
        span: Span,
    ) -> Checked<Expr> {
        let call = |function: &str| Name { text: function.to_owned(), span: name.span };
        match function {
            "apply_kernel" => self.window(name, operands, span),
            "sobel" => {
                let operands = self.with_size(name, operands, 3)?;
                self.call(&call("sobel"), &operands, span)
            }
            "color_correct" => {
                let mut operands = operands.to_vec();
                // Brightness, contrast, saturation where none are given: a mild correction.
                for default in [0.0, 1.1, 1.1].into_iter().skip(operands.len() - 1) {
                    operands.push(ast::Expr { span, kind: ast::ExprKind::Float(default, false) });
                }
                self.call(&call("color_correct"), &operands, span)
            }
            _ => self.call(&call(function), operands, span),
        }
    }

    /// Appends the parameters `width` and `height` where the operands do not name the image's size.
    fn with_size(&mut self, name: &Name, operands: &[ast::Expr], given: usize) -> Checked<Vec<ast::Expr>> {
        let mut operands = operands.to_vec();
        if operands.len() == given {
            for size in ["width", "height"] {
                if !matches!(self.lookup(size), Some(Binding::Scalar(_) | Binding::Var(_))) {
                    let message = format!("`{}` needs the image's size", name.text);
                    return Err(self
                        .error(Diagnostic::error("arguments", name.span, message).hint(format!(
                            "name it after x and y, or pass it with `GPU_PARAM {size} int`"
                        ))));
                }
                operands.push(ast::Expr { span: name.span, kind: ast::ExprKind::Name(size.to_owned()) });
            }
        }
        Ok(operands)
    }

    /// `APPLY_KERNEL 5x5 image x y [width height]`: a Gaussian window.
    fn window(&mut self, name: &Name, operands: &[ast::Expr], span: Span) -> Checked<Expr> {
        let function = match operands[0].kind {
            ast::ExprKind::Int(3, _) => "gaussian3",
            ast::ExprKind::Int(5, _) => "gaussian5",
            _ => {
                let message = "the window is 3x3 or 5x5".to_owned();
                return Err(self.error(
                    Diagnostic::error("arguments", operands[0].span, message)
                        .hint("other windows are two FOR loops over a GPU_CONST table"),
                ));
            }
        };
        let operands = self.with_size(name, &operands[1..], 3)?;
        self.call(&Name { text: function.to_owned(), span: name.span }, &operands, span)
    }
}

/// Whether a value is known to be 0 to 255.
fn is_byte(value: &Expr) -> bool {
    match &value.kind {
        ExprKind::Const(_) => value.constant_int().is_some_and(|v| (0..256).contains(&v)),
        ExprKind::Bits(inner) => is_byte(inner),
        ExprKind::Binary(BinaryOp::And, _, mask) => {
            mask.constant_int().is_some_and(|v| (0..256).contains(&v))
        }
        ExprKind::Binary(BinaryOp::Shr, inner, count) => {
            inner.ty == Scalar::Uint && count.constant_int().is_some_and(|v| v >= 24)
        }
        ExprKind::Binary(BinaryOp::Min, inner, limit) => {
            limit.constant_int().is_some_and(|v| (0..256).contains(&v))
                && (inner.ty == Scalar::Uint
                    || matches!(&inner.kind, ExprKind::Binary(BinaryOp::Max, _, low) if low.constant_int() == Some(0)))
        }
        _ => false,
    }
}
