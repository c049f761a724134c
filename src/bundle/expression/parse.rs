//! Parses tokens into an expression: recursive descent, with binding powers for the operators.
//!
//! The grammar is that of Python's expressions without `await`, `yield`, `:=`, bytes, f-strings, and
//! lambda parameters other than plain names. Nesting and the number of chained operators are limited,
//! so neither parsing nor walking the result can exhaust the stack.

use super::ast::{BinaryOp, CompareOp, ComprehensionKind, Expr, UnaryOp, precedence as level};
use super::token::{Token, tokenise};

/// Length limit for an expression, in bytes.
const MAX_LENGTH: usize = 16 << 10;

/// Nesting limit for brackets, unary operators and the like.
const MAX_DEPTH: usize = 48;

/// Limit on the operators, calls, indices and attributes in one expression.
const MAX_LINKS: usize = 128;

const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue",
    "def", "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import",
    "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while",
    "with", "yield",
];

/// Parses an expression, given without its `$`. The error says what cannot be parsed.
pub(crate) fn parse(source: &str) -> Result<Expr, String> {
    if source.len() > MAX_LENGTH {
        return Err(format!("is longer than {MAX_LENGTH} bytes"));
    }
    let mut parser = Parser { tokens: tokenise(source)?, at: 0, depth: 0, links: 0 };
    let first = parser.expression()?;
    let expr = if parser.next_is(",") { parser.rest_of_tuple(first, None)? } else { first };
    match parser.peek() {
        None => Ok(expr),
        Some(token) => Err(format!("does not continue with {}", show(token))),
    }
}

/// The parser's state. The contents of brackets are parsed in `brackets`.
pub(super) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
    links: usize,
}

pub(super) type Parsed<T = Expr> = Result<T, String>;

impl Parser {
    pub(super) fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    pub(super) fn next_is(&self, op: &str) -> bool {
        matches!(self.peek(), Some(Token::Op(found)) if *found == op)
    }

    pub(super) fn next_is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if found == word)
    }

    pub(super) fn take(&mut self, op: &str) -> bool {
        let found = self.next_is(op);
        self.at += usize::from(found);
        found
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.next_is_word(word);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, op: &str) -> Parsed<()> {
        if self.take(op) { Ok(()) } else { Err(self.unexpected(&format!("`{op}`"))) }
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Parsed<()> {
        if self.take_word(word) { Ok(()) } else { Err(self.unexpected(&format!("`{word}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> String {
        match self.peek() {
            Some(token) => format!("has {} where {wanted} belongs", show(token)),
            None => format!("ends where {wanted} belongs"),
        }
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth == MAX_DEPTH {
            return Err(format!("is nested more than {MAX_DEPTH} deep"));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    pub(super) fn link(&mut self) -> Parsed<()> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(format!("has more than {MAX_LINKS} operators and calls"));
        }
        Ok(())
    }

    pub(super) fn name(&mut self) -> Parsed<String> {
        match self.peek() {
            Some(Token::Name(name)) if !KEYWORDS.contains(&name.as_str()) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// Parses a whole expression without a bare tuple: `lambda`, `if` – `else` or an operation.
    pub(super) fn expression(&mut self) -> Parsed {
        self.nested(|p| {
            if p.take_word("lambda") {
                return p.rest_of_lambda();
            }
            let then = p.operation(level::OR)?;
            if !p.take_word("if") {
                return Ok(then);
            }
            let condition = p.operation(level::OR)?;
            p.expect_word("else")?;
            let otherwise = p.expression()?;
            Ok(Expr::Conditional {
                condition: Box::new(condition),
                then: Box::new(then),
                otherwise: Box::new(otherwise),
            })
        })
    }

    fn rest_of_lambda(&mut self) -> Parsed {
        let mut params: Vec<String> = Vec::new();
        while !self.next_is(":") {
            let param = self.name().map_err(|_| self.unexpected("a lambda's plain parameter"))?;
            if params.contains(&param) {
                return Err(format!("gives the parameter `{param}` twice"));
            }
            params.push(param);
            if !self.take(",") {
                break;
            }
        }
        self.expect(":")?;
        Ok(Expr::Lambda { params, body: Box::new(self.expression()?) })
    }

    /// Parses operators that bind at least as tightly as `floor`.
    pub(super) fn operation(&mut self, floor: u8) -> Parsed {
        let mut left = self.operand(floor)?;
        loop {
            if level::COMPARE >= floor
                && let Some(first) = self.comparison()
            {
                left = self.rest_of_comparison(left, first)?;
                continue;
            }
            let Some(op) = self.binary().filter(|op| op.precedence() >= floor) else {
                return Ok(left);
            };
            self.at += 1;
            self.link()?;
            // `**` is right-associative, and its right operand may have a sign: 2 ** -1.
            let right = match op {
                BinaryOp::Power => self.nested(|p| p.operation(level::UNARY))?,
                _ => self.operation(op.precedence() + 1)?,
            };
            left = Expr::Binary(op, Box::new(left), Box::new(right));
        }
    }

    fn rest_of_comparison(&mut self, left: Expr, first: CompareOp) -> Parsed {
        let mut links = Vec::new();
        let mut next = Some(first);
        while let Some(op) = next {
            self.at += if matches!(op, CompareOp::NotIn | CompareOp::IsNot) { 2 } else { 1 };
            self.link()?;
            links.push((op, self.operation(level::BIT_OR)?));
            next = self.comparison();
        }
        Ok(Expr::Compare(Box::new(left), links))
    }

    fn operand(&mut self, floor: u8) -> Parsed {
        if self.next_is_word("not") && floor <= level::NOT {
            self.at += 1;
            let inner = self.nested(|p| p.operation(level::NOT))?;
            return Ok(Expr::Unary(UnaryOp::Not, Box::new(inner)));
        }
        let op = match self.peek() {
            Some(Token::Op("-")) => UnaryOp::Negative,
            Some(Token::Op("+")) => UnaryOp::Positive,
            Some(Token::Op("~")) => UnaryOp::Invert,
            _ => return self.postfix(),
        };
        self.at += 1;
        let inner = self.nested(|p| p.operation(level::UNARY))?;
        Ok(Expr::Unary(op, Box::new(inner)))
    }

    fn binary(&self) -> Option<BinaryOp> {
        Some(match self.peek()? {
            Token::Name(word) if word == "or" => BinaryOp::Or,
            Token::Name(word) if word == "and" => BinaryOp::And,
            Token::Op("|") => BinaryOp::BitOr,
            Token::Op("^") => BinaryOp::BitXor,
            Token::Op("&") => BinaryOp::BitAnd,
            Token::Op("<<") => BinaryOp::ShiftLeft,
            Token::Op(">>") => BinaryOp::ShiftRight,
            Token::Op("+") => BinaryOp::Add,
            Token::Op("-") => BinaryOp::Subtract,
            Token::Op("*") => BinaryOp::Multiply,
            Token::Op("/") => BinaryOp::Divide,
            Token::Op("//") => BinaryOp::FloorDivide,
            Token::Op("%") => BinaryOp::Modulo,
            Token::Op("**") => BinaryOp::Power,
            _ => return None,
        })
    }

    fn comparison(&self) -> Option<CompareOp> {
        let second = |word: &str| matches!(self.tokens.get(self.at + 1), Some(Token::Name(found)) if found == word);
        Some(match self.peek()? {
            Token::Op("==") => CompareOp::Equal,
            Token::Op("!=") => CompareOp::NotEqual,
            Token::Op("<") => CompareOp::Less,
            Token::Op("<=") => CompareOp::LessEqual,
            Token::Op(">") => CompareOp::Greater,
            Token::Op(">=") => CompareOp::GreaterEqual,
            Token::Name(word) if word == "in" => CompareOp::In,
            Token::Name(word) if word == "not" && second("in") => CompareOp::NotIn,
            Token::Name(word) if word == "is" && second("not") => CompareOp::IsNot,
            Token::Name(word) if word == "is" => CompareOp::Is,
            _ => return None,
        })
    }

    /// Parses an atom with its attributes, indices and calls.
    fn postfix(&mut self) -> Parsed {
        let mut expr = self.atom()?;
        loop {
            expr = if self.take(".") {
                Expr::Attribute(Box::new(expr), self.name()?)
            } else if self.take("[") {
                let index = self.nested(Self::index)?;
                self.expect("]")?;
                Expr::Index(Box::new(expr), Box::new(index))
            } else if self.take("(") {
                self.nested(|p| p.rest_of_call(expr))?
            } else {
                return Ok(expr);
            };
            self.link()?;
        }
    }

    fn index(&mut self) -> Parsed {
        let first = self.slice_or_item()?;
        if !self.next_is(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.take(",") && !self.next_is("]") {
            items.push(self.slice_or_item()?);
        }
        Ok(Expr::Tuple(items))
    }

    fn slice_or_item(&mut self) -> Parsed {
        let start = if self.next_is(":") { None } else { Some(Box::new(self.item()?)) };
        if !self.take(":") {
            return start.map(|e| *e).ok_or_else(|| self.unexpected("an index"));
        }
        let stop = self.slice_bound()?;
        let step = if self.take(":") { self.slice_bound()? } else { None };
        Ok(Expr::Slice(start, stop, step))
    }

    fn slice_bound(&mut self) -> Parsed<Option<Box<Expr>>> {
        let ends = self.next_is(":") || self.next_is("]") || self.next_is(",");
        if ends { Ok(None) } else { Ok(Some(Box::new(self.expression()?))) }
    }

    /// Parses an expression, optionally starred.
    pub(super) fn item(&mut self) -> Parsed {
        if self.take("*") {
            let inner = self.nested(|p| p.operation(level::BIT_OR))?;
            return Ok(Expr::Starred(Box::new(inner)));
        }
        self.expression()
    }

    fn rest_of_call(&mut self, function: Expr) -> Parsed {
        let (mut args, mut keywords) = (Vec::new(), Vec::new());
        while !self.take(")") {
            if self.take("**") {
                keywords.push((None, self.expression()?));
            } else if self.is_keyword_argument() {
                let name = self.name()?;
                self.expect("=")?;
                keywords.push((Some(name), self.expression()?));
            } else {
                let arg = self.item()?;
                if self.next_is_word("for") {
                    args.push(self.rest_of_comprehension(ComprehensionKind::Generator, arg)?);
                } else {
                    args.push(arg);
                }
            }
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(Expr::Call { function: Box::new(function), args, keywords })
    }

    fn is_keyword_argument(&self) -> bool {
        matches!(
            (self.peek(), self.tokens.get(self.at + 1)),
            (Some(Token::Name(_)), Some(Token::Op("=")))
        )
    }

    fn atom(&mut self) -> Parsed {
        let Some(token) = self.peek().cloned() else { return Err(self.unexpected("a value")) };
        let expr = match token {
            Token::Int(value) => Expr::Int(value),
            Token::Float(value) => Expr::Float(value),
            Token::Reference(reference) => Expr::Reference(reference),
            Token::Str(value) => return Ok(self.adjacent_strings(value)),
            Token::Name(word) => match word.as_str() {
                "None" => Expr::Null,
                "True" => Expr::Bool(true),
                "False" => Expr::Bool(false),
                _ => return self.name().map(Expr::Name),
            },
            Token::Op(open @ ("(" | "[" | "{")) => {
                self.at += 1;
                return self.nested(|p| match open {
                    "(" => p.rest_of_parentheses(),
                    "[" => p.rest_of_list(),
                    _ => p.rest_of_braces(),
                });
            }
            Token::Op(_) => return Err(self.unexpected("a value")),
        };
        self.at += 1;
        Ok(expr)
    }

    fn adjacent_strings(&mut self, mut value: String) -> Expr {
        self.at += 1;
        while let Some(Token::Str(more)) = self.peek() {
            value.push_str(more);
            self.at += 1;
        }
        Expr::Str(value)
    }
}

fn show(token: &Token) -> String {
    match token {
        Token::Int(value) => format!("`{value}`"),
        Token::Float(value) => format!("`{value}`"),
        Token::Str(_) => "a string".to_owned(),
        Token::Name(name) => format!("`{name}`"),
        Token::Reference(reference) => format!("`{reference}`"),
        Token::Op(op) => format!("`{op}`"),
    }
}
