//! The library: functions that kernels can call ([`mod@prelude`]), and statements that make up a whole kernel.
//!
//! All of it is written in the language itself, so that one checker, one CPU executor and each back end serve it
//! too; what is added here is how the work of a whole kernel is spread over launches ([`Schedule`]).

mod aes;
mod matmul;
mod prelude;
mod sha256;
mod sort;

use std::sync::OnceLock;

use crate::ast::{self, Name, Target};
use crate::check::word::Whole;
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::ir::Unit;
use crate::options::Options;
use crate::plan::{Launch, Operand};
use crate::program::Kernel;
use crate::types::{Element, ParamType, Scalar};

/// A unit of a kernel and where its parameters come from.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) unit: Unit,
    pub(crate) sources: Vec<Source>,
}

/// Where a unit's parameter comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// A parameter of the kernel.
    Param(usize),
    /// A value that the schedule computes.
    Extra(Extra),
}

/// Values that schedules compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extra {
    Rows,
    Columns,
    Depth,
    /// Binary logarithm of half the elements that are compared over.
    Shift,
    /// 32-bit words of a key.
    KeyWords,
    Rounds,
    /// Blocks or messages.
    Count,
    /// Bytes of a message.
    Chunk,
}

/// A number that is in the text or comes with a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    Fixed(i32),
    Param(usize),
}

impl Number {
    fn value(self, operands: &[Operand]) -> i32 {
        match self {
            Self::Fixed(value) => value,
            Self::Param(index) => crate::arith::int(operands[index].bits),
        }
    }
}

/// How a kernel's launches are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// One launch with a thread for each element.
    Map,
    Matmul {
        a: usize,
        b: usize,
        c: usize,
        dims: Option<[Number; 3]>,
    },
    Sort {
        data: usize,
    },
    Aes {
        data: usize,
        key: usize,
        counter: Option<usize>,
        out: usize,
    },
    Sha256 {
        data: usize,
        chunk: Number,
        out: usize,
    },
}

impl Schedule {
    pub(crate) fn is_map(&self) -> bool {
        *self == Self::Map
    }

    /// The launches for these arguments, or why they do not fit together.
    pub(crate) fn launches(&self, kernel: &Kernel, operands: &[Operand]) -> Result<Vec<Launch>, String> {
        match *self {
            Self::Map => Ok(Vec::new()),
            Self::Matmul { a, b, c, dims } => matmul::launches(kernel, operands, [a, b, c], dims),
            Self::Sort { data } => Ok(sort::launches(operands[data].length)),
            Self::Aes { data, key, counter, out } => aes::launches(operands, data, key, counter, out),
            Self::Sha256 { data, chunk, out } => {
                sha256::launches(operands[data].length, operands[out].length, chunk.value(operands))
            }
        }
    }
}

/// What the library's texts call their kernel; the units get the program's name for it. So no name, however long or odd, is a
/// part of those texts.
const ENTRY: &str = "whole";

/// A launch of one stage with what the schedule computed for it.
fn launch(stage: usize, elements: u64, extras: Vec<(Extra, i32)>) -> Launch {
    Launch { stage, elements, first: 0, extras, operands: Vec::new() }
}

/// A statement that makes up a whole kernel.
pub(crate) struct Request<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) whole: Whole,
    pub(crate) word: &'a Name,
    pub(crate) operands: &'a [ast::Expr],
    pub(crate) target: Option<&'a Target>,
    pub(crate) extra: &'a [ast::Expr],
    pub(crate) span: Span,
}

type Built = Option<(Vec<Stage>, Schedule)>;

/// Makes the units of a whole kernel's work.
pub(crate) fn build(request: &Request<'_>, diagnostics: &mut Diagnostics) -> Built {
    let built = match request.whole {
        Whole::Matmul => build_matmul(request),
        Whole::Sort => build_sort(request),
        Whole::AesBlock => build_aes(request, false),
        Whole::AesCtr => build_aes(request, true),
        Whole::Sha256 => build_sha256(request),
    };
    match built {
        Ok(built) => Some(built),
        Err(found) => {
            diagnostics.push(*found);
            None
        }
    }
}

type Attempt<T> = Result<T, Box<Diagnostic>>;

impl Request<'_> {
    fn refuse(&self, span: Span, message: String, form: &str) -> Box<Diagnostic> {
        Box::new(Diagnostic::error("arguments", span, message).hint(format!("the form is `{form}`")))
    }

    /// The array parameter that an operand names.
    fn array(&self, operand: &ast::Expr, form: &str) -> Attempt<(usize, Element)> {
        let name = match &operand.kind {
            ast::ExprKind::Name(name) => name.as_str(),
            ast::ExprKind::Index(name, _) => {
                let message =
                    format!("`{}` works on whole arrays, not on the element of one thread", self.word.text);
                return Err(self.refuse(name.span, message, form));
            }
            _ => return Err(self.refuse(operand.span, "an array's name is needed here".to_owned(), form)),
        };
        self.param(name, operand.span, form)
    }

    fn param(&self, name: &str, span: Span, form: &str) -> Attempt<(usize, Element)> {
        let found = self.kernel.params.iter().position(|param| param.name == name);
        match found.map(|index| (index, self.kernel.params[index].ty)) {
            Some((index, ParamType::Array(element))) => Ok((index, element)),
            Some((_, ParamType::Scalar(_))) => {
                Err(self.refuse(span, format!("`{name}` is a single value"), form))
            }
            None => Err(Box::new(
                Diagnostic::error("unknown-name", span, format!("`{name}` is no parameter of this kernel"))
                    .hint(format!("declare it: `GPU_PARAM {name} float[]`")),
            )),
        }
    }

    /// The array that the result goes to.
    fn target(&self, form: &str) -> Attempt<(usize, Element)> {
        match self.target {
            Some(Target::Name(name)) => self.param(&name.text, name.span, form),
            Some(Target::Place(place)) => {
                let message = format!("`{}` writes a whole array", self.word.text);
                Err(self.refuse(place.array.span, message, form))
            }
            None => {
                let message = format!("the result of `{}` goes nowhere", self.word.text);
                Err(Box::new(
                    Diagnostic::error("syntax", self.span, message)
                        .expected(&["→"])
                        .hint(format!("the form is `{form}`")),
                ))
            }
        }
    }

    fn number(&self, operand: &ast::Expr, form: &str) -> Attempt<Number> {
        match &operand.kind {
            ast::ExprKind::Int(value, _) => match i32::try_from(*value) {
                Ok(value @ 1..) => Ok(Number::Fixed(value)),
                _ => Err(self.refuse(operand.span, "a positive number is needed here".to_owned(), form)),
            },
            ast::ExprKind::Name(name) => {
                let found = self.kernel.params.iter().position(|param| param.name == *name);
                match found.map(|index| (index, self.kernel.params[index].ty)) {
                    Some((index, ParamType::Scalar(Element::Int | Element::Uint))) => {
                        Ok(Number::Param(index))
                    }
                    _ => Err(self.refuse(operand.span, format!("`{name}` is no int parameter"), form)),
                }
            }
            _ => {
                Err(self.refuse(operand.span, "a number or an int parameter is needed here".to_owned(), form))
            }
        }
    }

    fn count(&self, wanted: usize, form: &str) -> Attempt<()> {
        if self.operands.len() == wanted {
            return Ok(());
        }
        let message = format!("`{}` takes {wanted} operands, not {}", self.word.text, self.operands.len());
        Err(self.refuse(self.span, message, form))
    }

    /// Checks that arrays hold one of these elements.
    fn element(&self, found: Element, allowed: &[Element], what: &str) -> Attempt<()> {
        if allowed.contains(&found) {
            return Ok(());
        }
        let names: Vec<&str> = allowed.iter().map(|element| element.name()).collect();
        let message =
            format!("{what} of `{}` holds {}, not {}", self.word.text, found.name(), names.join(" or "));
        Err(Box::new(Diagnostic::error("type", self.span, message).expected(&names)))
    }
}

/// Units with the parameters that the texts declare, in the same order as `sources`.
fn stages(request: &Request<'_>, text: &str, sources: &[Vec<Source>]) -> Vec<Stage> {
    let units = crate::check::compile_trusted(text, ENTRY, &request.kernel.name);
    assert_eq!(units.len(), sources.len(), "one unit for each list of sources");
    units.into_iter().zip(sources).map(|(unit, sources)| Stage { unit, sources: sources.clone() }).collect()
}

fn build_matmul(request: &Request<'_>) -> Attempt<(Vec<Stage>, Schedule)> {
    const FORM: &str = "PARALLEL_MATMUL a b → c [DIMS rows columns depth]";
    request.count(2, FORM)?;
    let (a, a_element) = request.array(&request.operands[0], FORM)?;
    let (b, b_element) = request.array(&request.operands[1], FORM)?;
    let (c, c_element) = request.target(FORM)?;
    let value = a_element.value();
    for element in [a_element, b_element, c_element] {
        let allowed = [Element::Float, Element::Half, Element::Double, Element::Int, Element::Uint];
        request.element(element, &allowed, "an array")?;
        if element.value() != value {
            let message = format!(
                "the arrays hold {}, {} and {}",
                a_element.name(),
                b_element.name(),
                c_element.name()
            );
            return Err(request.refuse(request.span, message, FORM));
        }
    }
    if a == c || b == c {
        return Err(request.refuse(request.span, "the result needs an array of its own".to_owned(), FORM));
    }
    let dims = match request.extra {
        [] => None,
        [m, n, k] => Some([request.number(m, FORM)?, request.number(n, FORM)?, request.number(k, FORM)?]),
        _ => return Err(request.refuse(request.span, "DIMS takes three numbers".to_owned(), FORM)),
    };
    let text = matmul::text(ENTRY, [a_element, b_element, c_element]);
    let sources = vec![
        Source::Param(a),
        Source::Param(b),
        Source::Param(c),
        Source::Extra(Extra::Rows),
        Source::Extra(Extra::Columns),
        Source::Extra(Extra::Depth),
    ];
    Ok((stages(request, &text, &[sources]), Schedule::Matmul { a, b, c, dims }))
}

fn build_sort(request: &Request<'_>) -> Attempt<(Vec<Stage>, Schedule)> {
    const FORM: &str = "SORT data";
    request.count(1, FORM)?;
    let (data, element) = request.array(&request.operands[0], FORM)?;
    request.element(element, &[Element::Int, Element::Uint, Element::Float], "the array")?;
    if request.target.is_some() && request.target(FORM)?.0 != data {
        return Err(request.refuse(request.span, "SORT sorts in place".to_owned(), FORM));
    }
    let text = sort::text(ENTRY, element);
    let own = Source::Param(data);
    let shift = Source::Extra(Extra::Shift);
    let sources = [vec![own], vec![own, shift], vec![own, shift], vec![own]];
    Ok((stages(request, &text, &sources), Schedule::Sort { data }))
}

fn build_aes(request: &Request<'_>, counting: bool) -> Attempt<(Vec<Stage>, Schedule)> {
    let form = if counting { "AES_CTR data key counter → out" } else { "AES_BLOCK data key → out" };
    request.count(if counting { 3 } else { 2 }, form)?;
    let mut arrays = Vec::new();
    for operand in request.operands {
        arrays.push(request.array(operand, form)?);
    }
    let out = request.target(form)?;
    arrays.push(out);
    for (_, element) in &arrays {
        request.element(*element, &[Element::Byte], "an array")?;
    }
    let text = aes::text(ENTRY, counting);
    let mut sources: Vec<Source> = arrays.iter().map(|(index, _)| Source::Param(*index)).collect();
    sources.extend([Extra::KeyWords, Extra::Rounds, Extra::Count].map(Source::Extra));
    let counter = counting.then(|| arrays[2].0);
    let schedule = Schedule::Aes { data: arrays[0].0, key: arrays[1].0, counter, out: out.0 };
    Ok((stages(request, &text, &[sources]), schedule))
}

fn build_sha256(request: &Request<'_>) -> Attempt<(Vec<Stage>, Schedule)> {
    const FORM: &str = "SHA256 data message_bytes → digests";
    request.count(2, FORM)?;
    let (data, element) = request.array(&request.operands[0], FORM)?;
    let chunk = request.number(&request.operands[1], FORM)?;
    let (out, out_element) = request.target(FORM)?;
    request.element(element, &[Element::Byte], "the data")?;
    request.element(out_element, &[Element::Byte], "the result")?;
    let text = sha256::text(ENTRY);
    let sources = vec![
        Source::Param(data),
        Source::Param(out),
        Source::Extra(Extra::Chunk),
        Source::Extra(Extra::Count),
    ];
    Ok((stages(request, &text, &[sources]), Schedule::Sha256 { data, chunk, out }))
}

/// The functions and tables that every program can use.
pub(crate) fn prelude() -> &'static ast::Program {
    static PRELUDE: OnceLock<ast::Program> = OnceLock::new();
    PRELUDE.get_or_init(|| {
        let options = Options { max_kernels: 1000, ..Options::default() };
        let mut diagnostics = Diagnostics::new(8);
        let program = crate::parse::parse(&prelude::text(), &options, true, &mut diagnostics);
        let found = diagnostics.finish();
        assert!(found.is_empty(), "the prelude's own text is wrong: {found:?}");
        program
    })
}

/// The value type in which a type's products are summed.
fn tile_type(element: Element) -> &'static str {
    match element.value() {
        Scalar::Double => "double",
        Scalar::Int => "int",
        Scalar::Uint => "uint",
        _ => "float",
    }
}
