//! Recursive-descent parser over the tokens of `lex`: modules and declarations here, function bodies in `body`.

mod body;
mod expression;

use super::ast::{Function, Init, Linkage, Module, Number, Space, Variable};
use super::lex::{Kind, Token, lex};
use super::{PtxError, Ty};

/// Scopes deeper than this are refused, so that hostile text cannot exhaust the stack.
const MAX_DEPTH: u32 = 200;

/// Parses a whole module.
///
/// # Errors
/// The first token that does not fit, with its place.
pub fn parse(text: &str) -> Result<Module<'_>, PtxError> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, depth: 0 };
    parser.module()
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    depth: u32,
}

type Result<T, E = PtxError> = std::result::Result<T, E>;

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    fn peek_at(&self, ahead: usize) -> Token<'a> {
        self.tokens[(self.at + ahead).min(self.tokens.len() - 1)]
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn is(&self, byte: u8) -> bool {
        self.peek().kind == Kind::Punct(byte)
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.is(byte);
        if found {
            self.at += 1;
        }
        found
    }

    fn is_dot(&self, word: &str) -> bool {
        let token = self.peek();
        token.kind == Kind::Dot && token.text == word
    }

    fn accept_dot(&mut self, word: &str) -> bool {
        let found = self.is_dot(word);
        if found {
            self.at += 1;
        }
        found
    }

    fn error<T>(&self, token: Token<'a>, wanted: &str) -> Result<T> {
        let found = match token.kind {
            Kind::End => "the end of the text".to_owned(),
            Kind::Dot => format!("`.{}`", token.text),
            _ => format!("`{}`", token.text),
        };
        Err(PtxError::new(token.line, token.column, format!("expected {wanted}, found {found}")))
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.accept(byte) {
            return Ok(());
        }
        self.error(self.peek(), &format!("`{}`", char::from(byte)))
    }

    fn name(&mut self) -> Result<&'a str> {
        let token = self.next();
        if token.kind == Kind::Name { Ok(token.text) } else { self.error(token, "a name") }
    }

    fn u32(&mut self) -> Result<u32> {
        let token = self.peek();
        let value = self.expression()?;
        match value {
            Number::Int(value) => u32::try_from(value).or_else(|_| self.error(token, "a 32-bit number")),
            _ => self.error(token, "an integer"),
        }
    }

    fn module(&mut self) -> Result<Module<'a>> {
        let mut module = Module {
            version: (0, 0),
            target: Vec::new(),
            address_size: 32,
            variables: Vec::new(),
            functions: Vec::new(),
            aliases: Vec::new(),
        };
        loop {
            let token = self.peek();
            match token.kind {
                Kind::End => break,
                Kind::Punct(b';') => self.at += 1,
                Kind::Dot => self.module_item(&mut module)?,
                _ => return self.error(token, "a directive"),
            }
        }
        if module.version == (0, 0) {
            return Err(PtxError::new(1, 1, "the text has no .version directive"));
        }
        Ok(module)
    }

    fn module_item(&mut self, module: &mut Module<'a>) -> Result<()> {
        let token = self.peek();
        match token.text {
            "version" => {
                self.at += 1;
                let number = self.next();
                let parts =
                    number.text.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                match parts {
                    Some(version) if number.kind == Kind::Number => module.version = version,
                    _ => return self.error(number, "a version such as 9.0"),
                }
            }
            "target" => {
                self.at += 1;
                loop {
                    module.target.push(self.name()?);
                    if !self.accept(b',') {
                        break;
                    }
                }
            }
            "address_size" => {
                self.at += 1;
                module.address_size = self.u32()?;
                if module.address_size != 64 {
                    return Err(PtxError::new(
                        token.line,
                        token.column,
                        format!("address size {} is not supported, only 64", module.address_size),
                    ));
                }
            }
            "file" | "loc" => self.skip_line(),
            "section" => self.skip_section()?,
            "pragma" => self.skip_statement(),
            "alias" => {
                self.at += 1;
                let new = self.name()?;
                self.expect(b',')?;
                let old = self.name()?;
                self.expect(b';')?;
                module.aliases.push((new, old));
            }
            _ => {
                let linkage = self.linkage();
                if self.accept_dot("entry") {
                    let function = self.function(true, linkage)?;
                    module.functions.push(function);
                } else if self.accept_dot("func") {
                    let function = self.function(false, linkage)?;
                    module.functions.push(function);
                } else {
                    self.variables(linkage, &mut module.variables)?;
                }
            }
        }
        Ok(())
    }

    fn linkage(&mut self) -> Linkage {
        let mut linkage = Linkage::Internal;
        loop {
            let token = self.peek();
            if token.kind != Kind::Dot {
                return linkage;
            }
            linkage = match token.text {
                "visible" => Linkage::Visible,
                "extern" => Linkage::Extern,
                "weak" => Linkage::Weak,
                "common" => Linkage::Common,
                _ => return linkage,
            };
            self.at += 1;
        }
    }

    fn skip_line(&mut self) {
        let line = self.peek().line;
        while self.peek().kind != Kind::End && self.peek().line == line {
            self.at += 1;
        }
    }

    fn skip_statement(&mut self) {
        while self.peek().kind != Kind::End && !self.accept(b';') {
            self.at += 1;
        }
    }

    fn skip_section(&mut self) -> Result<()> {
        let start = self.peek();
        while self.peek().kind != Kind::End && !self.accept(b'{') {
            self.at += 1;
        }
        let mut depth = 1;
        while depth > 0 {
            match self.next().kind {
                Kind::Punct(b'{') => depth += 1,
                Kind::Punct(b'}') => depth -= 1,
                Kind::End => return self.error(start, "`}` to end the section"),
                _ => {}
            }
        }
        Ok(())
    }

    /// `.space .attributes .ty name[dims] = init, name2 …;`
    fn variables(&mut self, linkage: Linkage, out: &mut Vec<Variable<'a>>) -> Result<()> {
        let token = self.next();
        let space = match token.text {
            "global" => Space::Global,
            "const" => Space::Const,
            "shared" | "shared::cta" => Space::Shared,
            "local" => Space::Local,
            "param" => Space::Param,
            "tex" => Space::Tex,
            _ => return self.error(token, "a directive or state space"),
        };
        let mut first = self.variable_head(linkage, space)?;
        loop {
            let mut variable = first.clone();
            let token = self.peek();
            variable.name = self.name()?;
            (variable.line, variable.column) = (token.line, token.column);
            self.dims(&mut variable.dims)?;
            if self.accept(b'=') {
                variable.init = Some(self.init()?);
                // `int x[] = {…}` takes its length from the list.
                if let (Some(None), Some(Init::List(list))) = (variable.dims.first(), &variable.init) {
                    variable.dims[0] = Some(list.len() as u64);
                }
            }
            out.push(variable);
            if !self.accept(b',') {
                break;
            }
            first.dims.clear();
        }
        self.expect(b';')
    }

    /// Everything between the state space and the name.
    fn variable_head(&mut self, linkage: Linkage, space: Space) -> Result<Variable<'a>> {
        let start = self.peek();
        let mut variable = Variable {
            linkage,
            space,
            ty: Ty::B8,
            vector: 1,
            align: 0,
            name: "",
            dims: Vec::new(),
            init: None,
            managed: false,
            line: start.line,
            column: start.column,
        };
        let mut typed = false;
        loop {
            let token = self.peek();
            if token.kind != Kind::Dot {
                break;
            }
            self.at += 1;
            match token.text {
                "align" => variable.align = self.u32()?,
                "v2" => variable.vector = 2,
                "v4" => variable.vector = 4,
                "v8" => variable.vector = 8,
                "attribute" => {
                    self.expect(b'(')?;
                    let mut depth = 1;
                    while depth > 0 {
                        let token = self.next();
                        match token.kind {
                            Kind::Punct(b'(') => depth += 1,
                            Kind::Punct(b')') => depth -= 1,
                            Kind::Dot if token.text == "managed" => variable.managed = true,
                            Kind::End => return self.error(token, "`)`"),
                            _ => {}
                        }
                    }
                }
                // Kernel parameters say what their pointers point to; the address does not change by it.
                "ptr" | "global" | "shared" | "const" | "local" | "param" if space == Space::Param => {}
                word => match Ty::from_name(word) {
                    Some(ty) => {
                        variable.ty = ty;
                        typed = true;
                    }
                    None => return self.error(token, "a type"),
                },
            }
        }
        if !typed {
            return self.error(self.peek(), "a type");
        }
        if variable.align == 0 {
            variable.align = variable.ty.bytes() * variable.vector;
        }
        if !variable.align.is_power_of_two() || variable.align > 1 << 20 {
            return Err(PtxError::new(
                start.line,
                start.column,
                format!("alignment {} is not a power of two", variable.align),
            ));
        }
        Ok(variable)
    }

    fn dims(&mut self, dims: &mut Vec<Option<u64>>) -> Result<()> {
        while self.accept(b'[') {
            if self.accept(b']') {
                dims.push(None);
                continue;
            }
            let token = self.peek();
            match self.expression()? {
                Number::Int(value) => dims.push(Some(value)),
                _ => return self.error(token, "an array length"),
            }
            self.expect(b']')?;
        }
        Ok(())
    }

    fn init(&mut self) -> Result<Init<'a>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(self.peek(), "fewer nested braces");
        }
        let init = self.init_inner();
        self.depth -= 1;
        init
    }

    fn init_inner(&mut self) -> Result<Init<'a>> {
        let token = self.peek();
        if self.accept(b'{') {
            let mut list = Vec::new();
            while !self.accept(b'}') {
                list.push(self.init()?);
                if !self.accept(b',') && !self.is(b'}') {
                    return self.error(self.peek(), "`,` or `}`");
                }
            }
            return Ok(Init::List(list));
        }
        let address = |parser: &mut Self, name, generic, mask| -> Result<Init<'a>> {
            let offset = parser.signed_tail()?;
            Ok(Init::Address { name, offset, generic, mask, line: token.line, column: token.column })
        };
        if token.kind == Kind::Name {
            self.at += 1;
            if token.text == "generic" && self.accept(b'(') {
                let name = self.name()?;
                let inner = self.signed_tail()?;
                self.expect(b')')?;
                let mut init = address(self, name, true, None)?;
                if let Init::Address { offset, .. } = &mut init {
                    *offset += inner;
                }
                return Ok(init);
            }
            return address(self, token.text, false, None);
        }
        let number = self.expression()?;
        if let Number::Int(mask) = number
            && self.accept(b'(')
        {
            // 0xFF00(symbol) or 0xFF00(generic(symbol)+4)
            let mut init = self.init()?;
            self.expect(b')')?;
            match &mut init {
                Init::Address { mask: slot, .. } => *slot = Some(mask),
                _ => return self.error(token, "a symbol under the mask"),
            }
            return Ok(init);
        }
        Ok(Init::Number(number))
    }

    /// `+4`, `-4`, `+4-2` or nothing.
    fn signed_tail(&mut self) -> Result<i64> {
        let mut sum = 0i64;
        loop {
            let token = self.peek();
            let negative = if self.accept(b'+') {
                false
            } else if self.accept(b'-') {
                true
            } else {
                return Ok(sum);
            };
            match self.unary()? {
                Number::Int(value) => {
                    let value = value.cast_signed();
                    sum = if negative { sum.wrapping_sub(value) } else { sum.wrapping_add(value) };
                }
                _ => return self.error(token, "an integer offset"),
            }
        }
    }

    fn parameters(&mut self) -> Result<Vec<Variable<'a>>> {
        let mut list = Vec::new();
        self.expect(b'(')?;
        if self.accept(b')') {
            return Ok(list);
        }
        loop {
            let token = self.next();
            let space = match (token.kind, token.text) {
                (Kind::Dot, "param") => Space::Param,
                (Kind::Dot, "reg") => Space::Reg,
                _ => return self.error(token, "`.param`"),
            };
            let mut variable = self.variable_head(Linkage::Internal, space)?;
            let token = self.peek();
            variable.name = self.name()?;
            (variable.line, variable.column) = (token.line, token.column);
            self.dims(&mut variable.dims)?;
            list.push(variable);
            if !self.accept(b',') {
                break;
            }
        }
        self.expect(b')')?;
        Ok(list)
    }

    fn triple(&mut self) -> Result<[u32; 3]> {
        let mut values = [1; 3];
        for (index, value) in values.iter_mut().enumerate() {
            if index > 0 && !self.accept(b',') {
                break;
            }
            *value = self.u32()?;
        }
        Ok(values)
    }

    fn function(&mut self, entry: bool, linkage: Linkage) -> Result<Function<'a>> {
        while self.accept_dot("attribute") {
            while !self.accept(b')') {
                if self.next().kind == Kind::End {
                    return self.error(self.peek(), "`)`");
                }
            }
        }
        let returns = if !entry && self.is(b'(') { self.parameters()? } else { Vec::new() };
        let token = self.peek();
        let name = self.name()?;
        let params = if self.is(b'(') { self.parameters()? } else { Vec::new() };
        let mut function = Function {
            entry,
            linkage,
            name,
            returns,
            params,
            max_threads: None,
            required_threads: None,
            min_ctas_per_sm: None,
            max_registers: None,
            required_cluster: None,
            max_cluster_rank: None,
            explicit_cluster: false,
            body: None,
            line: token.line,
            column: token.column,
        };
        loop {
            let token = self.next();
            match (token.kind, token.text) {
                (Kind::Punct(b';'), _) => return Ok(function),
                (Kind::Punct(b'{'), _) => break,
                (Kind::Dot, "maxntid") => function.max_threads = Some(self.triple()?),
                (Kind::Dot, "reqntid") => function.required_threads = Some(self.triple()?),
                (Kind::Dot, "minnctapersm" | "maxnctapersm") => function.min_ctas_per_sm = Some(self.u32()?),
                (Kind::Dot, "maxnreg") => function.max_registers = Some(self.u32()?),
                (Kind::Dot, "reqnctapercluster") => function.required_cluster = Some(self.triple()?),
                (Kind::Dot, "maxclusterrank") => function.max_cluster_rank = Some(self.u32()?),
                (Kind::Dot, "explicitcluster") => function.explicit_cluster = true,
                (Kind::Dot, "noreturn" | "blocksareclusters" | "unique") => {}
                (Kind::Dot, "abi_preserve" | "abi_preserve_control") => {
                    self.u32()?;
                }
                (Kind::Dot, "pragma") => self.skip_statement(),
                (Kind::Dot, "loc") => {
                    self.at -= 1;
                    self.skip_line();
                }
                _ => return self.error(token, "a performance directive, `;` or `{`"),
            }
        }
        function.body = Some(self.block()?);
        Ok(function)
    }
}
