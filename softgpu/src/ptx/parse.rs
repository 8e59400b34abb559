//! Recursive-descent parser over the tokens of `lex`.

use super::ast::{
    Base, Function, Init, Instruction, Linkage, Module, Number, Operand, Space, Statement, Variable,
};
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

    /// Statements up to the closing brace; the opening one is consumed already.
    fn block(&mut self) -> Result<Vec<Statement<'a>>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(self.peek(), "fewer nested scopes");
        }
        let mut list = Vec::new();
        while !self.accept(b'}') {
            self.statement(&mut list)?;
        }
        self.depth -= 1;
        Ok(list)
    }

    fn statement(&mut self, list: &mut Vec<Statement<'a>>) -> Result<()> {
        let token = self.peek();
        match token.kind {
            Kind::Punct(b';') => self.at += 1,
            Kind::Punct(b'{') => {
                self.at += 1;
                let block = self.block()?;
                list.push(Statement::Block(block));
            }
            Kind::Punct(b'@') => {
                self.at += 1;
                let negated = self.accept(b'!');
                let guard = self.name()?;
                let instruction = self.instruction(Some((guard, negated)))?;
                list.push(Statement::Instruction(instruction));
            }
            Kind::Name if self.peek_at(1).kind == Kind::Punct(b':') => {
                self.at += 2;
                self.labelled(token, list)?;
            }
            Kind::Name => {
                let instruction = self.instruction(None)?;
                list.push(Statement::Instruction(instruction));
            }
            Kind::Dot => self.local_directive(list)?,
            _ => return self.error(token, "a statement"),
        }
        Ok(())
    }

    fn labelled(&mut self, label: Token<'a>, list: &mut Vec<Statement<'a>>) -> Result<()> {
        let name = label.text;
        if self.accept_dot("branchtargets") {
            let mut targets = vec![self.name()?];
            while self.accept(b',') {
                targets.push(self.name()?);
            }
            self.expect(b';')?;
            list.push(Statement::BranchTargets { name, targets, line: label.line });
        } else if self.accept_dot("calltargets") {
            self.skip_statement();
            list.push(Statement::CallTargets { name });
        } else if self.accept_dot("callprototype") {
            let returns = if self.is(b'(') { self.parameters()? } else { Vec::new() };
            self.name()?;
            let params = if self.is(b'(') { self.parameters()? } else { Vec::new() };
            while self.peek().kind == Kind::Dot {
                self.at += 1;
            }
            self.expect(b';')?;
            list.push(Statement::CallPrototype { name, returns, params });
        } else {
            list.push(Statement::Label { name, line: label.line, column: label.column });
        }
        Ok(())
    }

    fn local_directive(&mut self, list: &mut Vec<Statement<'a>>) -> Result<()> {
        match self.peek().text {
            "reg" => {
                self.at += 1;
                let head = self.variable_head(Linkage::Internal, Space::Reg)?;
                let mut names = Vec::new();
                loop {
                    let name = self.name()?;
                    let mut count = None;
                    if self.accept(b'<') {
                        count = Some(self.u32()?);
                        self.expect(b'>')?;
                    }
                    names.push((name, count));
                    if !self.accept(b',') {
                        break;
                    }
                }
                self.expect(b';')?;
                list.push(Statement::Registers { ty: head.ty, vector: head.vector, names });
            }
            "loc" | "file" => self.skip_line(),
            "pragma" => self.skip_statement(),
            "section" => self.skip_section()?,
            _ => {
                let linkage = self.linkage();
                let mut variables = Vec::new();
                self.variables(linkage, &mut variables)?;
                list.extend(variables.into_iter().map(Statement::Variable));
            }
        }
        Ok(())
    }

    fn instruction(&mut self, guard: Option<(&'a str, bool)>) -> Result<Instruction<'a>> {
        let token = self.next();
        if token.kind != Kind::Name {
            return self.error(token, "an opcode");
        }
        let mut modifiers = Vec::new();
        while self.peek().kind == Kind::Dot {
            modifiers.push(self.next().text);
        }
        let mut operands = Vec::new();
        if !self.accept(b';') {
            loop {
                operands.push(self.operand()?);
                if self.accept(b',') {
                    continue;
                }
                self.expect(b';')?;
                break;
            }
        }
        Ok(Instruction {
            guard,
            opcode: token.text,
            modifiers,
            operands,
            line: token.line,
            column: token.column,
        })
    }

    fn operand(&mut self) -> Result<Operand<'a>> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(self.peek(), "fewer nested operands");
        }
        let operand = self.operand_inner();
        self.depth -= 1;
        operand
    }

    fn operand_inner(&mut self) -> Result<Operand<'a>> {
        let token = self.peek();
        match token.kind {
            Kind::Name => {
                self.at += 1;
                let first = if self.peek().kind == Kind::Dot {
                    Operand::Member(token.text, self.next().text)
                } else if token.text == "_" {
                    Operand::Sink
                } else if self.is(b'+') || self.is(b'-') {
                    Operand::Offset(token.text, self.signed_tail()?)
                } else {
                    Operand::Name(token.text)
                };
                if self.accept(b'|') {
                    let second = self.operand()?;
                    return Ok(Operand::Pair(Box::new(first), Box::new(second)));
                }
                Ok(first)
            }
            Kind::Punct(b'!') if self.peek_at(1).kind == Kind::Name => {
                self.at += 1;
                Ok(Operand::Not(self.name()?))
            }
            Kind::Punct(b'[') => {
                self.at += 1;
                self.address()
            }
            Kind::Punct(b'{') => {
                self.at += 1;
                Ok(Operand::Vector(self.operand_list(b'}')?))
            }
            // A parenthesis opens an argument list, or a constant expression when a number follows.
            Kind::Punct(b'(') if !matches!(self.peek_at(1).kind, Kind::Number | Kind::Punct(b'-' | b'~')) => {
                self.at += 1;
                Ok(Operand::Group(self.operand_list(b')')?))
            }
            Kind::Punct(b'(') if self.is_argument_list() => {
                self.at += 1;
                Ok(Operand::Group(self.operand_list(b')')?))
            }
            Kind::Number | Kind::Punct(b'-' | b'+' | b'~' | b'!' | b'(') => {
                Ok(Operand::Number(self.expression()?))
            }
            _ => self.error(token, "an operand"),
        }
    }

    /// After `(` with a number behind it: whether a comma or the end of the list shows a call's arguments.
    fn is_argument_list(&self) -> bool {
        let mut ahead = 1;
        let mut depth = 1;
        loop {
            match self.peek_at(ahead).kind {
                Kind::Punct(b'(') => depth += 1,
                Kind::Punct(b')') => {
                    depth -= 1;
                    if depth == 0 {
                        // `call f, (5);` against `mov.u32 %r1, (1+2);` — a lone number is the same either way.
                        return false;
                    }
                }
                Kind::Punct(b',') if depth == 1 => return true,
                Kind::Punct(b';') | Kind::End => return false,
                _ => {}
            }
            ahead += 1;
        }
    }

    fn operand_list(&mut self, close: u8) -> Result<Vec<Operand<'a>>> {
        let mut list = Vec::new();
        if self.accept(close) {
            return Ok(list);
        }
        loop {
            list.push(self.operand()?);
            if self.accept(b',') {
                continue;
            }
            self.expect(close)?;
            return Ok(list);
        }
    }

    /// After `[`.
    fn address(&mut self) -> Result<Operand<'a>> {
        let token = self.peek();
        if token.kind == Kind::Name {
            let after = self.peek_at(1).kind;
            if after == Kind::Punct(b',') {
                return Ok(Operand::Handle(self.operand_list(b']')?));
            }
            self.at += 1;
            let offset = self.signed_tail()?;
            if self.is(b',') {
                // `[a+4, {…}]`
                let mut list = vec![Operand::Offset(token.text, offset)];
                self.at += 1;
                list.extend(self.operand_list(b']')?);
                return Ok(Operand::Handle(list));
            }
            self.expect(b']')?;
            return Ok(Operand::Address { base: Base::Name(token.text), offset });
        }
        let number = self.expression()?;
        self.expect(b']')?;
        match number {
            Number::Int(value) => Ok(Operand::Address { base: Base::Number(value), offset: 0 }),
            _ => self.error(token, "an address"),
        }
    }

    fn expression(&mut self) -> Result<Number> {
        self.binary(0)
    }

    /// Precedence climbing over C's integer operators (ISA section 4.5).
    fn binary(&mut self, least: u8) -> Result<Number> {
        let mut left = self.unary()?;
        loop {
            let token = self.peek();
            let Kind::Punct(first) = token.kind else { return Ok(left) };
            let double = self.peek_at(1).kind == Kind::Punct(first);
            let (precedence, width) = match first {
                b'*' | b'/' | b'%' => (5, 1),
                b'+' | b'-' => (4, 1),
                b'<' | b'>' if double => (3, 2),
                b'&' if !double => (2, 1),
                b'^' => (1, 1),
                b'|' if !double => (0, 1),
                _ => return Ok(left),
            };
            if precedence < least {
                return Ok(left);
            }
            self.at += width;
            let right = self.binary(precedence + 1)?;
            let (Number::Int(a), Number::Int(b)) = (left, right) else {
                return self.error(token, "integers in a constant expression");
            };
            let value = match first {
                b'*' => a.wrapping_mul(b),
                b'/' | b'%' if b == 0 => return self.error(token, "a divisor other than zero"),
                b'/' => a.cast_signed().wrapping_div(b.cast_signed()).cast_unsigned(),
                b'%' => a.cast_signed().wrapping_rem(b.cast_signed()).cast_unsigned(),
                b'+' => a.wrapping_add(b),
                b'-' => a.wrapping_sub(b),
                b'<' => a.checked_shl(u32::try_from(b).unwrap_or(64)).unwrap_or(0),
                b'>' => a.checked_shr(u32::try_from(b).unwrap_or(64)).unwrap_or(0),
                b'&' => a & b,
                b'^' => a ^ b,
                _ => a | b,
            };
            left = Number::Int(value);
        }
    }

    fn unary(&mut self) -> Result<Number> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(self.peek(), "a shorter expression");
        }
        let value = self.unary_inner();
        self.depth -= 1;
        value
    }

    fn unary_inner(&mut self) -> Result<Number> {
        let token = self.next();
        match token.kind {
            Kind::Punct(b'-') => Ok(match self.unary()? {
                Number::Int(value) => Number::Int(value.wrapping_neg()),
                Number::F32(bits) => Number::F32(bits ^ 0x8000_0000),
                Number::F64(bits) => Number::F64(bits ^ (1 << 63)),
            }),
            Kind::Punct(b'+') => self.unary(),
            Kind::Punct(b'~') => match self.unary()? {
                Number::Int(value) => Ok(Number::Int(!value)),
                _ => self.error(token, "an integer after `~`"),
            },
            Kind::Punct(b'!') => match self.unary()? {
                Number::Int(value) => Ok(Number::Int(u64::from(value == 0))),
                _ => self.error(token, "an integer after `!`"),
            },
            Kind::Punct(b'(') => {
                // Casts `(.s64)` change nothing in 64-bit two's complement.
                if self.peek().kind == Kind::Dot {
                    self.at += 1;
                    self.expect(b')')?;
                    return self.unary();
                }
                let value = self.expression()?;
                self.expect(b')')?;
                Ok(value)
            }
            Kind::Number => match number(token.text) {
                Some(value) => Ok(value),
                None => self.error(token, "a number"),
            },
            _ => self.error(token, "a number"),
        }
    }
}

/// The value of a literal.
fn number(text: &str) -> Option<Number> {
    let rest = text.strip_prefix('0').unwrap_or("");
    if let Some(hex) = rest.strip_prefix(['f', 'F']) {
        return (hex.len() == 8).then(|| u32::from_str_radix(hex, 16).ok().map(Number::F32)).flatten();
    }
    if let Some(hex) = rest.strip_prefix(['d', 'D']) {
        return (hex.len() == 16).then(|| u64::from_str_radix(hex, 16).ok().map(Number::F64)).flatten();
    }
    let digits = text.strip_suffix(['u', 'U']).unwrap_or(text);
    let rest = digits.strip_prefix('0').unwrap_or("");
    let value = if let Some(hex) = rest.strip_prefix(['x', 'X']) {
        u64::from_str_radix(hex, 16).ok()
    } else if let Some(binary) = rest.strip_prefix(['b', 'B']) {
        u64::from_str_radix(binary, 2).ok()
    } else if digits.contains(['.', 'e', 'E']) {
        return text.parse::<f64>().ok().map(|value| Number::F64(value.to_bits()));
    } else if !rest.is_empty() {
        u64::from_str_radix(rest, 8).ok()
    } else {
        digits.parse().ok()
    };
    value.map(Number::Int)
}
