//! Expressions to instructions.

use super::{Class, Emitter, Operand};
use crate::arith;
use crate::facts::Facts;
use crate::ir::{BinaryOp, CompareOp, Def, Expr, ExprKind, Guards, UnaryOp};
use crate::layout::Hidden;
use crate::types::Scalar;

impl Emitter<'_> {
    /// A constant as an immediate.
    fn immediate(ty: Scalar, bits: u64) -> Operand {
        Operand::fixed(match ty {
            Scalar::Int => arith::int(bits).to_string(),
            Scalar::Uint | Scalar::Pixel => arith::low(bits).to_string(),
            Scalar::Float => format!("0f{:08X}", arith::low(bits)),
            Scalar::Double => format!("0d{bits:016X}"),
            Scalar::Bool => bits.to_string(),
        })
    }

    /// A variable's value, identified by how often it has changed.
    fn variable(&mut self, var: u32) -> Operand {
        let home = self.home(var);
        match self.unit.vars[var as usize].def {
            Def::Once(_) | Def::Loaded(_) => home,
            _ => Operand { key: format!("{}@{}", home.text, self.versions[var as usize]), text: home.text },
        }
    }

    /// An expression's value: a register or an immediate.
    pub(super) fn expr(&mut self, expr: &Expr) -> Operand {
        let class = Class::of(expr.ty);
        match &expr.kind {
            // Predicates have no immediates.
            ExprKind::Const(bits) if expr.ty == Scalar::Bool => {
                let relation = if *bits == 0 { "ne" } else { "eq" };
                self.value(class, format!("constant {bits}"), |r| format!("setp.{relation}.b32 {r}, 0, 0;"))
            }
            ExprKind::Const(bits) => Self::immediate(expr.ty, *bits),
            ExprKind::Var(var) => self.variable(*var),
            ExprKind::Special(special) => self.special(*special),
            ExprKind::Scalar(index) => self.scalar(*index),
            ExprKind::Len(index) => self.hidden(Hidden::Length(*index)),
            ExprKind::Bits(inner) => self.reinterpret(inner, expr.ty),
            _ => {
                let (key, text) = self.instruction(expr);
                self.value(class, key, |r| text.replacen("{}", r, 1))
            }
        }
    }

    /// Computes an expression into a given register.
    pub(super) fn expr_into(&mut self, expr: &Expr, register: &str) {
        let computed = !matches!(
            expr.kind,
            ExprKind::Const(_)
                | ExprKind::Var(_)
                | ExprKind::Special(_)
                | ExprKind::Scalar(_)
                | ExprKind::Len(_)
                | ExprKind::Bits(_)
        );
        if computed {
            let (key, text) = self.instruction(expr);
            let at_hand = self.values.iter().rev().find_map(|table| table.get(&key)).cloned();
            if at_hand.is_none() {
                let text = text.replacen("{}", register, 1);
                self.line(&text);
                return;
            }
        }
        let value = self.expr(expr);
        let ty = match expr.ty {
            Scalar::Bool => "pred",
            Scalar::Float => "f32",
            Scalar::Double => "f64",
            _ => "b32",
        };
        self.line(&format!("mov.{ty} {register}, {};", value.text));
    }

    /// The same bits as another type: a move only between register classes.
    fn reinterpret(&mut self, inner: &Expr, ty: Scalar) -> Operand {
        let value = self.expr(inner);
        let (from, to) = (Class::of(inner.ty), Class::of(ty));
        if from == to {
            return value;
        }
        self.value(to, format!("bits {} {to:?}", value.key), |r| format!("mov.b32 {r}, {};", value.text))
    }

    /// An operand that must be a register.
    pub(super) fn register(&mut self, expr: &Expr) -> Operand {
        let operand = self.expr(expr);
        if operand.text.starts_with('%') {
            return operand;
        }
        let ty = match expr.ty {
            Scalar::Float => "f32",
            Scalar::Double => "f64",
            _ => "b32",
        };
        let class = Class::of(expr.ty);
        self.value(class, format!("mov {ty} {}", operand.key), |r| format!("mov.{ty} {r}, {};", operand.text))
    }

    /// The instruction that makes a value: its identity, and its text with `{}` for the result.
    fn instruction(&mut self, expr: &Expr) -> (String, String) {
        let make = |op: &str, operands: &[&Operand]| {
            let list =
                |part: fn(&Operand) -> &str| operands.iter().map(|o| part(o)).collect::<Vec<_>>().join(", ");
            (format!("{op} {}", list(|o| &o.key)), format!("{op} {{}}, {};", list(|o| &o.text)))
        };
        match &expr.kind {
            ExprKind::Unary(op, inner) => {
                let value = self.register(inner);
                make(unary(*op, expr.ty), &[&value])
            }
            ExprKind::Binary(op, a, b) => {
                if let Some(found) = self.division(*op, expr, a, b) {
                    return found;
                }
                // Immediates stand on the right.
                let commutes = matches!(
                    op,
                    BinaryOp::Add
                        | BinaryOp::Mul
                        | BinaryOp::And
                        | BinaryOp::Or
                        | BinaryOp::Xor
                        | BinaryOp::Min
                        | BinaryOp::Max
                );
                let constant = matches!(a.kind, ExprKind::Const(_));
                let (a, b) = if commutes && constant { (b, a) } else { (a, b) };
                let x = self.register(a);
                let y = self.expr(b);
                if *op == BinaryOp::Rotr {
                    return make("shf.r.wrap.b32", &[&x, &x, &y]);
                }
                make(&binary(*op, expr.ty), &[&x, &y])
            }
            ExprKind::Compare(op, a, b) => {
                let x = self.register(a);
                let y = self.expr(b);
                make(&compare(*op, a.ty), &[&x, &y])
            }
            ExprKind::Fma(three) => {
                let (x, y, z) = (self.register(&three[0]), self.expr(&three[1]), self.expr(&three[2]));
                make(
                    match expr.ty {
                        Scalar::Float => "fma.rn.f32",
                        Scalar::Double => "fma.rn.f64",
                        _ => "mad.lo.s32",
                    },
                    &[&x, &y, &z],
                )
            }
            ExprKind::Select(three) => {
                let condition = self.expr(&three[0]);
                let (x, y) = (self.expr(&three[1]), self.expr(&three[2]));
                if expr.ty == Scalar::Bool {
                    return self.select_pred(&condition, &x, &y);
                }
                let op = match expr.ty {
                    Scalar::Float => "selp.f32",
                    Scalar::Double => "selp.f64",
                    _ => "selp.b32",
                };
                make(op, &[&x, &y, &condition])
            }
            ExprKind::Cast(inner) => {
                let value = self.register(inner);
                if inner.ty == Scalar::Bool {
                    let (op, one, zero) = match expr.ty {
                        Scalar::Float => ("selp.f32", "0f3F800000", "0f00000000"),
                        Scalar::Double => ("selp.f64", "0d3FF0000000000000", "0d0000000000000000"),
                        _ => ("selp.b32", "1", "0"),
                    };
                    let [one, zero] = [one, zero].map(|text| Operand::fixed(text.to_owned()));
                    return make(op, &[&one, &zero, &value]);
                }
                make(convert(inner.ty, expr.ty), &[&value])
            }
            _ => unreachable!("leaves are no instructions"),
        }
    }

    fn select_pred(&mut self, condition: &Operand, x: &Operand, y: &Operand) -> (String, String) {
        // Predicates are selected by their integer forms.
        let as_int = |this: &mut Self, p: &Operand| {
            this.value(Class::Word, format!("selp.b32 1, 0, {}", p.key), |r| {
                format!("selp.b32 {r}, 1, 0, {};", p.text)
            })
        };
        let (x, y) = (as_int(self, x), as_int(self, y));
        let chosen =
            self.value(Class::Word, format!("selp.b32 {}, {}, {}", x.key, y.key, condition.key), |r| {
                format!("selp.b32 {r}, {}, {}, {};", x.text, y.text, condition.text)
            });
        (format!("setp.ne.b32 {}, 0", chosen.key), format!("setp.ne.b32 {{}}, {}, 0;", chosen.text))
    }

    /// Divisions of what is never negative: by a parameter through its multiplier, by a constant without a sign.
    fn division(&mut self, op: BinaryOp, expr: &Expr, a: &Expr, b: &Expr) -> Option<(String, String)> {
        if !matches!(op, BinaryOp::Div | BinaryOp::Rem) || expr.ty != Scalar::Int {
            return None;
        }
        let none = Guards { outer: None, condition: None };
        if Facts::new(self.unit).interval(a, &none).low < 0 {
            return None;
        }
        match b.kind {
            ExprKind::Const(_) if b.constant_int()? > 0 => {
                let (x, y) = (self.register(a), self.expr(b));
                let op = if op == BinaryOp::Div { "div.u32" } else { "rem.u32" };
                Some((format!("{op} {}, {}", x.key, y.key), format!("{op} {{}}, {}, {};", x.text, y.text)))
            }
            ExprKind::Scalar(index) if self.variant.reciprocal && self.layout.has_reciprocal(index) => {
                let quotient = self.quotient(a, index);
                if op == BinaryOp::Div {
                    // The quotient has its register already.
                    return Some((
                        format!("cvt.u32.u64 {}", quotient.key),
                        format!("cvt.u32.u64 {{}}, {};", quotient.text),
                    ));
                }
                let q = self.value(Class::Word, format!("cvt.u32.u64 {}", quotient.key), |r| {
                    format!("cvt.u32.u64 {r}, {};", quotient.text)
                });
                // The negative is the same for all threads, and one step less stands between a thread and its column.
                let (x, d) = (self.register(a), self.scalar(index));
                let negative = self.global(Class::Word, &format!("negative {index}"), |r| {
                    format!("neg.s32 {r}, {};", d.text)
                });
                Some((
                    format!("mad.lo.s32 {}, {}, {}", q.key, negative.key, x.key),
                    format!("mad.lo.s32 {{}}, {}, {}, {};", q.text, negative.text, x.text),
                ))
            }
            _ => None,
        }
    }

    /// `a / parameter` as 64 bits.
    fn quotient(&mut self, a: &Expr, index: u32) -> Operand {
        let x = self.register(a);
        let (m, s) = (self.hidden(Hidden::Multiplier(index)), self.hidden(Hidden::Shift(index)));
        let wide = self.value(Class::Long, format!("mul.wide.u32 {}, {}", x.key, m.key), |r| {
            format!("mul.wide.u32 {r}, {}, {};", x.text, m.text)
        });
        self.value(Class::Long, format!("shr.u64 {}, {}", wide.key, s.key), |r| {
            format!("shr.u64 {r}, {}, {};", wide.text, s.text)
        })
    }
}

fn unary(op: UnaryOp, ty: Scalar) -> &'static str {
    match (op, ty) {
        (UnaryOp::Neg, Scalar::Float) => "neg.f32",
        (UnaryOp::Neg, Scalar::Double) => "neg.f64",
        (UnaryOp::Neg, _) => "neg.s32",
        (UnaryOp::Not, _) => "not.pred",
        (UnaryOp::Invert, _) => "not.b32",
        (UnaryOp::Abs, Scalar::Float) => "abs.f32",
        (UnaryOp::Abs, Scalar::Double) => "abs.f64",
        (UnaryOp::Abs, _) => "abs.s32",
        (UnaryOp::Sqrt, Scalar::Double) => "sqrt.rn.f64",
        (UnaryOp::Sqrt, _) => "sqrt.rn.f32",
        (UnaryOp::Floor, Scalar::Double) => "cvt.rmi.f64.f64",
        (UnaryOp::Floor, _) => "cvt.rmi.f32.f32",
        (UnaryOp::Ceil, Scalar::Double) => "cvt.rpi.f64.f64",
        (UnaryOp::Ceil, _) => "cvt.rpi.f32.f32",
        (UnaryOp::Round, Scalar::Double) => "cvt.rni.f64.f64",
        (UnaryOp::Round, _) => "cvt.rni.f32.f32",
    }
}

fn binary(op: BinaryOp, ty: Scalar) -> String {
    let signed = match ty {
        Scalar::Int => "s32",
        Scalar::Uint | Scalar::Pixel => "u32",
        Scalar::Float => "f32",
        Scalar::Double => "f64",
        Scalar::Bool => "pred",
    };
    let bits = if ty == Scalar::Bool { "pred" } else { "b32" };
    match op {
        // Written with the rounding, so that ptxas does not contract what this compiler did not.
        BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul if ty.is_floating() => {
            let name = match op {
                BinaryOp::Add => "add",
                BinaryOp::Sub => "sub",
                _ => "mul",
            };
            format!("{name}.rn.{signed}")
        }
        BinaryOp::Add => format!("add.{signed}"),
        BinaryOp::Sub => format!("sub.{signed}"),
        BinaryOp::Mul => format!("mul.lo.{signed}"),
        BinaryOp::Div if ty.is_floating() => format!("div.rn.{signed}"),
        BinaryOp::Div => format!("div.{signed}"),
        BinaryOp::Rem => format!("rem.{signed}"),
        BinaryOp::Min => format!("min.{signed}"),
        BinaryOp::Max => format!("max.{signed}"),
        BinaryOp::And => format!("and.{bits}"),
        BinaryOp::Or => format!("or.{bits}"),
        BinaryOp::Xor => format!("xor.{bits}"),
        BinaryOp::Shl => "shl.b32".to_owned(),
        BinaryOp::Shr => format!("shr.{signed}"),
        BinaryOp::Rotr => "shf.r.wrap.b32".to_owned(),
    }
}

fn compare(op: CompareOp, ty: Scalar) -> String {
    let name = match (op, ty.is_floating()) {
        (CompareOp::Lt, _) => "lt",
        (CompareOp::Le, _) => "le",
        (CompareOp::Gt, _) => "gt",
        (CompareOp::Ge, _) => "ge",
        (CompareOp::Eq, _) => "eq",
        // NaN is unequal to everything.
        (CompareOp::Ne, true) => "neu",
        (CompareOp::Ne, false) => "ne",
    };
    let ty = match ty {
        Scalar::Int => "s32",
        Scalar::Uint => "u32",
        Scalar::Float => "f32",
        Scalar::Double => "f64",
        Scalar::Pixel | Scalar::Bool => "b32",
    };
    format!("setp.{name}.{ty}")
}

fn convert(from: Scalar, to: Scalar) -> &'static str {
    match (from, to) {
        (Scalar::Int, Scalar::Float) => "cvt.rn.f32.s32",
        (Scalar::Uint, Scalar::Float) => "cvt.rn.f32.u32",
        (Scalar::Int, Scalar::Double) => "cvt.rn.f64.s32",
        (Scalar::Uint, Scalar::Double) => "cvt.rn.f64.u32",
        (Scalar::Float, Scalar::Int) => "cvt.rzi.s32.f32",
        (Scalar::Float, Scalar::Uint) => "cvt.rzi.u32.f32",
        (Scalar::Double, Scalar::Int) => "cvt.rzi.s32.f64",
        (Scalar::Double, Scalar::Uint) => "cvt.rzi.u32.f64",
        (Scalar::Float, Scalar::Double) => "cvt.f64.f32",
        (Scalar::Double, Scalar::Float) => "cvt.rn.f32.f64",
        _ => "mov.b32",
    }
}
