//! Function bodies: statements, instructions and operands.

use super::{MAX_DEPTH, Parser, Result};
use crate::ptx::ast::{Base, Instruction, Linkage, Number, Operand, Space, Statement};
use crate::ptx::lex::{Kind, Token};

impl<'a> Parser<'a> {
    /// Statements up to the closing brace; the opening one is consumed already.
    pub(super) fn block(&mut self) -> Result<Vec<Statement<'a>>> {
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
                let list = Operand::Vector(self.operand_list(b'}')?);
                if self.accept(b'|') {
                    // `tex … {…}|p`: whether the texels are resident.
                    let second = self.operand()?;
                    return Ok(Operand::Pair(Box::new(list), Box::new(second)));
                }
                Ok(list)
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
}
