//! Well-typed programs at random: no races, no endless loops, every statement of the language in them.

use std::fmt::Write as _;

use pxos_primitives::Element;

use super::{Noise, Value};

const TYPES: [&str; 5] = ["int", "uint", "float", "double", "pixel"];

/// A program and arguments for its one kernel.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) text: String,
    pub(crate) values: Vec<Value>,
    pub(crate) elements: u64,
}

struct Generator {
    noise: Noise,
    out: String,
    /// Variables that have a value here, by type.
    vars: Vec<(&'static str, String)>,
    /// Loop variables, which cannot be assigned.
    counters: usize,
    made: usize,
    shared: bool,
    block: u32,
}

/// Array parameters of every program: name and element.
const ARRAYS: [(&str, Element); 7] = [
    ("ai", Element::Int),
    ("au", Element::Uint),
    ("af", Element::Float),
    ("ad", Element::Double),
    ("ap", Element::Pixel),
    ("ah", Element::Half),
    ("ab", Element::Byte),
];

/// Makes the program of a seed.
pub(crate) fn program(seed: u64) -> Case {
    let mut noise = Noise::new(seed);
    let shared = noise.chance(40);
    let block = *noise.pick(&[32, 64, 256]);
    let mut generator =
        Generator { noise, out: String::new(), vars: Vec::new(), counters: 0, made: 0, shared, block };
    generator.kernel();
    let mut noise = generator.noise;
    // Sometimes exactly as many elements as threads, so that checks can be proven; sometimes fewer.
    let elements = u64::from(1 + noise.below(700));
    let elements = if shared { elements.next_multiple_of(u64::from(block)) } else { elements };
    let length = elements as usize + if noise.chance(50) { 0 } else { noise.below(40) as usize };
    let mut values = Vec::new();
    for (_, element) in ARRAYS {
        values.push(Value::Array(element, noise.array(element, length)));
    }
    for (_, element) in ARRAYS {
        values.push(Value::Array(element, vec![0; length * element.bytes()]));
    }
    values.push(Value::Array(Element::Int, vec![0; 64]));
    let n = if noise.chance(70) { elements } else { elements / 2 + 1 };
    values.push(Value::Scalar(n));
    values.push(Value::Scalar(u64::from(1 + noise.below(50))));
    values.push(Value::Scalar(u64::from((noise.below(100) as f32 / 7.0).to_bits())));
    Case { text: generator.out, values, elements }
}

impl Generator {
    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.out, "{}{text}", "  ".repeat(depth));
    }

    fn kernel(&mut self) {
        self.out.push_str(
            "GPU_CONST table float[] 0.5 -1.25 3.0 1e-3\n    7.5 -2.0 0.0 1.0\n\
             GPU_FUNCTION mix(x int, y int) → int:\n  CALCULATE z = x * 31 + y\n  IF z < 0:\n    CALCULATE z = -z\n  \
             RETURN z ^ (z >> 3)\nGPU_END\nGPU_KERNEL k\n",
        );
        for (name, element) in ARRAYS {
            let _ = writeln!(self.out, "GPU_PARAM {name} {}[]", element.name());
        }
        for (name, element) in ARRAYS {
            let _ = writeln!(self.out, "GPU_PARAM o{name} {}[]", element.name());
        }
        let _ = write!(
            self.out,
            "GPU_PARAM sums int[]\nGPU_PARAM n int\nGPU_PARAM m int\nGPU_PARAM s float\nGPU_BLOCK {}\n",
            self.block
        );
        if self.shared {
            let _ = write!(self.out, "GPU_SHARED_MEM sh float {0}\nGPU_SHARED_MEM si int {0}\n", self.block);
        }
        self.out.push_str("GPU_THREAD_CODE:\n  THREAD_ID → tid\n  LOCAL_ID → lid\n  BLOCK_ID → bid\n");
        self.vars = vec![("int", "tid".into()), ("int", "lid".into()), ("int", "bid".into())];
        self.counters = 3;
        let count = 4 + self.noise.below(10);
        for _ in 0..count {
            if self.shared && self.noise.chance(25) {
                self.exchange();
            } else {
                self.statement(1, 0);
            }
        }
        for (name, element) in ARRAYS {
            let value = self.stored(element, 3);
            // An index that proofs see through, or not.
            let guard = self.noise.chance(50);
            if guard {
                self.line(1, &format!("IF tid < n: STORE {value} → o{name}[tid]"));
            } else {
                self.line(1, &format!("STORE {value} → o{name}[tid]"));
            }
        }
        self.out.push_str("GPU_END\n");
    }

    fn stored(&mut self, element: Element, depth: u32) -> String {
        match element {
            Element::Byte | Element::Int => self.expr("int", depth),
            Element::Uint => self.expr("uint", depth),
            Element::Float | Element::Half => self.expr("float", depth),
            Element::Double => self.expr("double", depth),
            Element::Pixel => self.expr("pixel", depth),
        }
    }

    /// Values through shared memory: everyone writes, all wait, everyone reads another's.
    fn exchange(&mut self) {
        let (name, ty) = *self.noise.pick(&[("sh", "float"), ("si", "int")]);
        let value = self.expr(ty, 2);
        let (block, by) = (self.block, self.noise.below(self.block));
        self.line(1, &format!("STORE {value} → {name}[lid]"));
        self.line(1, "SYNC_THREADS");
        let var = self.fresh();
        self.line(1, &format!("LOAD {name}[(lid + {by}) % {block}] → {var}"));
        self.line(1, "SYNC_THREADS");
        self.vars.push((ty, var));
    }

    fn fresh(&mut self) -> String {
        self.made += 1;
        format!("v{}", self.made)
    }

    fn statement(&mut self, depth: usize, loops: u32) {
        match self.noise.below(if depth > 3 { 60 } else { 100 }) {
            0..30 => {
                let ty = *self.noise.pick(&TYPES);
                let value = self.expr(ty, 4);
                self.assign(depth, ty, &value);
            }
            30..50 => {
                let (name, element) = *self.noise.pick(&ARRAYS);
                let ty = match element {
                    Element::Byte | Element::Int => "int",
                    Element::Uint => "uint",
                    Element::Float | Element::Half => "float",
                    Element::Double => "double",
                    Element::Pixel => "pixel",
                };
                let index = self.index(name);
                let var = self.fresh();
                self.line(depth, &format!("LOAD {name}[{index}] → {var}"));
                self.vars.push((ty, var));
            }
            50..55 => {
                let (word, ty) = *self.noise.pick(&[
                    ("ADD", "float"),
                    ("MUL", "int"),
                    ("MIN", "double"),
                    ("XOR", "uint"),
                    ("MAX", "int"),
                ]);
                let (a, b) = (self.operand(ty), self.operand(ty));
                let var = self.fresh();
                self.line(depth, &format!("{word} {a} {b} → {var}"));
                self.vars.push((ty, var));
            }
            55..60 => {
                let value = self.expr("int", 2);
                let slot = self.noise.below(16);
                let word = *self.noise.pick(&["ADD", "ADD", "ADD"]);
                self.line(depth, &format!("ATOMIC_{word} sums[{slot}] ({value})"));
            }
            60..85 => {
                let condition = self.condition(2);
                self.line(depth, &format!("IF {condition}:"));
                let known = self.vars.clone();
                self.body(depth + 1, loops);
                self.vars.clone_from(&known);
                if self.noise.chance(50) {
                    if self.noise.chance(30) {
                        let condition = self.condition(1);
                        self.line(depth, &format!("ELIF {condition}:"));
                        self.body(depth + 1, loops);
                        self.vars.clone_from(&known);
                    }
                    self.line(depth, "ELSE:");
                    self.body(depth + 1, loops);
                    self.vars = known;
                }
            }
            _ => {
                if loops >= 2 {
                    return;
                }
                let var = self.fresh();
                let (from, to) = (self.noise.below(4) as i32 - 2, self.noise.below(6));
                let to = if self.noise.chance(30) { format!("{to} + (tid & 3)") } else { to.to_string() };
                let step = if self.noise.chance(30) { " STEP 2" } else { "" };
                self.line(depth, &format!("FOR {var} IN {from}..{to}{step}:"));
                let known = self.vars.clone();
                self.vars.insert(0, ("int", var));
                self.counters += 1;
                self.body(depth + 1, loops + 1);
                self.counters -= 1;
                self.vars = known;
            }
        }
    }

    fn body(&mut self, depth: usize, loops: u32) {
        let before = self.out.len();
        for _ in 0..1 + self.noise.below(3) {
            self.statement(depth, loops);
        }
        if self.out.len() == before {
            self.assign(depth, "int", "1");
        }
    }

    /// To a new variable, or to an old one of that type.
    fn assign(&mut self, depth: usize, ty: &'static str, value: &str) {
        let old: Vec<String> = self
            .vars
            .iter()
            .filter(|(t, v)| *t == ty && v.starts_with('w'))
            .map(|(_, v)| v.clone())
            .collect();
        if !old.is_empty() && self.noise.chance(50) {
            let var = self.noise.pick(&old).clone();
            self.line(depth, &format!("CALCULATE {var} = {value}"));
        } else {
            self.made += 1;
            let var = format!("w{}", self.made);
            self.line(depth, &format!("CALCULATE {var} = {value}"));
            self.vars.push((ty, var));
        }
    }

    /// An index that is within bounds, in more or less obvious ways.
    fn index(&mut self, array: &str) -> String {
        let any = self.expr("int", 2);
        match self.noise.below(5) {
            0 | 1 => "tid".to_owned(),
            2 => format!("clamp({any}, 0, len({array}) - 1)"),
            3 => format!("({any} & 0x7fffffff) % len({array})"),
            _ => "max(tid - 1, 0)".to_owned(),
        }
    }

    fn operand(&mut self, ty: &'static str) -> String {
        let value = self.leaf(ty);
        format!("({value})")
    }

    fn leaf(&mut self, ty: &'static str) -> String {
        let known: Vec<String> = self.vars.iter().filter(|(t, _)| *t == ty).map(|(_, v)| v.clone()).collect();
        if !known.is_empty() && self.noise.chance(70) {
            return self.noise.pick(&known).clone();
        }
        match ty {
            "int" => match self.noise.below(6) {
                0 => "n".to_owned(),
                1 => "m".to_owned(),
                2 => "len(ai)".to_owned(),
                3 => self.noise.pick(&["0x7fffffff", "(-0x7fffffff - 1)", "65536"]).to_string(),
                _ => (self.noise.below(41) as i32 - 20).to_string(),
            },
            "uint" => format!("{}u", self.noise.next() >> self.noise.below(31)),
            "float" => match self.noise.below(4) {
                0 => "s".to_owned(),
                1 => format!("table[{}]", self.noise.below(8)),
                _ => format!("{:.3}", self.noise.below(4001) as f32 / 100.0 - 20.0),
            },
            "double" => format!("{:.4}d", f64::from(self.noise.below(4001)) / 100.0 - 20.0),
            _ => format!("pixel({}, tid, 7, {})", self.noise.below(300), self.noise.below(256)),
        }
    }

    fn condition(&mut self, depth: u32) -> String {
        let ty = *self.noise.pick(&["int", "uint", "float", "double"]);
        let op = *self.noise.pick(&["<", "<=", ">", ">=", "==", "!="]);
        let (a, b) = (self.expr(ty, depth), self.expr(ty, depth));
        let first = format!("{a} {op} {b}");
        match self.noise.below(6) {
            0 if depth > 0 => format!("{first} AND {}", self.condition(depth - 1)),
            1 if depth > 0 => format!("{first} OR ({})", self.condition(depth - 1)),
            2 => format!("NOT ({first})"),
            3 if depth > 0 => format!("{first} AND ai[max(tid - 1, 0)] > {}", self.leaf("int")),
            _ => first,
        }
    }

    fn expr(&mut self, ty: &'static str, depth: u32) -> String {
        if depth == 0 || self.noise.chance(15) {
            return self.leaf(ty);
        }
        let d = depth - 1;
        let two = |this: &mut Self, ops: &[&str]| {
            let op = *this.noise.pick(ops);
            let (a, b) = (this.expr(ty, d), this.expr(ty, d));
            format!("({a} {op} {b})")
        };
        let call = |this: &mut Self, names: &[&str]| {
            let name = *this.noise.pick(names);
            let (a, b) = (this.expr(ty, d), this.expr(ty, d));
            format!("{name}({a}, {b})")
        };
        match ty {
            "int" => match self.noise.below(12) {
                0..5 => two(self, &["+", "-", "*", "&", "|", "^"]),
                5 => call(self, &["min", "max", "mix"]),
                6 => format!("({} {} m)", self.expr("int", d), self.noise.pick(&["/", "%"])),
                7 => format!("(tid {} m)", self.noise.pick(&["/", "%"])),
                8 => format!(
                    "({} {} {})",
                    self.expr("int", d),
                    self.noise.pick(&["<<", ">>"]),
                    self.noise.below(35)
                ),
                9 => format!(
                    "int({})",
                    self.expr(self.noise.clone().pick::<&str>(&["float", "double", "uint"]), d)
                ),
                10 => format!(
                    "{}.{}",
                    self.expr("pixel", 0).replace(' ', ""),
                    self.noise.pick(&["r", "g", "b", "a"])
                ),
                _ => format!("select({}, {}, {})", self.condition(0), self.expr("int", d), self.leaf("int")),
            },
            "uint" => match self.noise.below(8) {
                0..4 => two(self, &["+", "-", "*", "&", "|", "^"]),
                4 => call(self, &["min", "max"]),
                5 => format!("rotr({}, {})", self.expr("uint", d), self.noise.below(33)),
                6 => format!("uint({})", self.expr("int", d)),
                _ => format!("({} / {}u)", self.expr("uint", d), 1 + self.noise.below(9)),
            },
            "float" => match self.noise.below(14) {
                0..5 => two(self, &["+", "-", "*", "*", "/"]),
                5 => call(self, &["min", "max"]),
                6 => format!("sqrt(abs({}))", self.expr("float", d)),
                7 => {
                    let name = *self
                        .noise
                        .pick(&["floor", "ceil", "round", "abs", "relu", "exp", "sin", "tanh", "sigmoid"]);
                    format!("{name}({})", self.expr("float", d))
                }
                8 => format!("float({})", self.expr("int", d)),
                9 => format!(
                    "({} * {} + {})",
                    self.expr("float", d),
                    self.leaf("float"),
                    self.expr("float", d)
                ),
                10 => format!("-({})", self.expr("float", d)),
                11 => {
                    format!("fma({}, {}, {})", self.leaf("float"), self.leaf("float"), self.expr("float", d))
                }
                12 => format!(
                    "select({}, {}, {})",
                    self.condition(0),
                    self.expr("float", d),
                    self.leaf("float")
                ),
                _ => format!("float({})", self.expr("double", d)),
            },
            "double" => match self.noise.below(6) {
                0..3 => two(self, &["+", "-", "*", "/"]),
                3 => format!("sqrt(abs({}))", self.expr("double", d)),
                4 => format!(
                    "double({})",
                    self.expr(self.noise.clone().pick::<&str>(&["int", "uint", "float"]), d)
                ),
                _ => format!("({} * {} - {})", self.leaf("double"), self.leaf("double"), self.leaf("double")),
            },
            _ => match self.noise.below(3) {
                0 => {
                    format!("pixel({}, {}, {})", self.expr("int", d), self.expr("float", d), self.leaf("int"))
                }
                1 => format!("color_correct({}, 0.1, 1.2, {})", self.leaf("pixel"), self.leaf("float")),
                _ => format!("select({}, {}, {})", self.condition(0), self.leaf("pixel"), self.leaf("pixel")),
            },
        }
    }
}
