//! The syntax tree of an expression.

use super::super::id::Reference;

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    /// `None`.
    Null,
    /// `True`, `False`.
    Bool(bool),
    /// An integer literal.
    Int(i64),
    /// A finite float literal.
    Float(f64),
    /// A string literal.
    Str(String),
    /// A name.
    Name(String),
    /// `@id`.
    Reference(Reference),
    /// `[a, *b]`
    List(Vec<Expr>),
    /// `(a, b)`
    Tuple(Vec<Expr>),
    /// `{a, b}`
    Set(Vec<Expr>),
    /// `{k: v, **more}`; without a key the value is unpacked.
    Dict(Vec<(Option<Expr>, Expr)>),
    /// `*a`, in a list, a tuple, a set or a call.
    Starred(Box<Expr>),
    /// `-a`, `+a`, `~a`, `not a`.
    Unary(UnaryOp, Box<Expr>),
    /// `a + b` and other binary operators, including `and` and `or`.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `a < b <= c`
    Compare(Box<Expr>, Vec<(CompareOp, Expr)>),
    /// `then if condition else otherwise`
    Conditional { condition: Box<Expr>, then: Box<Expr>, otherwise: Box<Expr> },
    /// `a.name`
    Attribute(Box<Expr>, String),
    /// `a[b]`
    Index(Box<Expr>, Box<Expr>),
    /// `start:stop:step`, in an index.
    Slice(Option<Box<Expr>>, Option<Box<Expr>>, Option<Box<Expr>>),
    /// `f(a, name=b, **c)`
    Call { function: Box<Expr>, args: Vec<Expr>, keywords: Vec<(Option<String>, Expr)> },
    /// `lambda a, b: body`
    Lambda { params: Vec<String>, body: Box<Expr> },
    /// `[element for target in items if condition]`
    Comprehension { kind: ComprehensionKind, element: Box<Expr>, clauses: Vec<Clause> },
}

/// What a comprehension creates.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ComprehensionKind {
    /// `[..]`
    List,
    /// `(..)`, or without parentheses as the only argument of a call.
    Generator,
    /// `{..}`
    Set,
    /// `{key: ..}`, with the expression of the key.
    Dict(Box<Expr>),
}

/// One `for targets in items if a if b`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Clause {
    /// One name, or several that a tuple is unpacked into.
    pub targets: Vec<String>,
    pub items: Expr,
    pub conditions: Vec<Expr>,
}

/// Unary operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnaryOp {
    Negative,
    Positive,
    Invert,
    Not,
}

/// Binary operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Or,
    And,
    BitOr,
    BitXor,
    BitAnd,
    ShiftLeft,
    ShiftRight,
    Add,
    Subtract,
    Multiply,
    Divide,
    FloorDivide,
    Modulo,
    Power,
}

impl BinaryOp {
    /// Returns Python's spelling.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::BitOr => "|",
            Self::BitXor => "^",
            Self::BitAnd => "&",
            Self::ShiftLeft => "<<",
            Self::ShiftRight => ">>",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::FloorDivide => "//",
            Self::Modulo => "%",
            Self::Power => "**",
        }
    }

    /// Returns its precedence; see [`precedence`].
    pub fn precedence(self) -> u8 {
        match self {
            Self::Or => precedence::OR,
            Self::And => precedence::AND,
            Self::BitOr => precedence::BIT_OR,
            Self::BitXor => precedence::BIT_XOR,
            Self::BitAnd => precedence::BIT_AND,
            Self::ShiftLeft | Self::ShiftRight => precedence::SHIFT,
            Self::Add | Self::Subtract => precedence::SUM,
            Self::Multiply | Self::Divide | Self::FloorDivide | Self::Modulo => precedence::PRODUCT,
            Self::Power => precedence::POWER,
        }
    }
}

/// Comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CompareOp {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
    NotIn,
    Is,
    IsNot,
}

impl CompareOp {
    /// Returns Python's spelling.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessEqual => "<=",
            Self::Greater => ">",
            Self::GreaterEqual => ">=",
            Self::In => "in",
            Self::NotIn => "not in",
            Self::Is => "is",
            Self::IsNot => "is not",
        }
    }
}

/// Precedence of operators, loosest first (from the Python reference's table).
pub(super) mod precedence {
    /// `lambda`
    pub const LAMBDA: u8 = 0;
    /// `if` – `else`
    pub const CONDITIONAL: u8 = 1;
    /// `or`
    pub const OR: u8 = 2;
    /// `and`
    pub const AND: u8 = 3;
    /// `not x`
    pub const NOT: u8 = 4;
    /// `<` and the like, `in`, `is`
    pub const COMPARE: u8 = 5;
    /// `|`
    pub const BIT_OR: u8 = 6;
    /// `^`
    pub const BIT_XOR: u8 = 7;
    /// `&`
    pub const BIT_AND: u8 = 8;
    /// `<<`, `>>`
    pub const SHIFT: u8 = 9;
    /// `+`, `-`
    pub const SUM: u8 = 10;
    /// `*`, `/`, `//`, `%`
    pub const PRODUCT: u8 = 11;
    /// `-x`, `+x`, `~x`
    pub const UNARY: u8 = 12;
    /// `**`
    pub const POWER: u8 = 13;
    /// `x.y`, `x[y]`, `x(y)`
    pub const POSTFIX: u8 = 14;
    /// Literals, names, and anything in brackets.
    pub const ATOM: u8 = 15;
}

impl Expr {
    /// Calls `visit` with each direct subexpression.
    pub fn for_each_child<'e>(&'e self, visit: &mut dyn FnMut(&'e Expr)) {
        match self {
            Self::List(items) | Self::Tuple(items) | Self::Set(items) => {
                items.iter().for_each(visit);
            }
            Self::Dict(entries) => {
                for (key, value) in entries {
                    key.iter().for_each(&mut *visit);
                    visit(value);
                }
            }
            Self::Starred(inner) | Self::Unary(_, inner) | Self::Attribute(inner, _) => {
                visit(inner);
            }
            Self::Binary(_, left, right) | Self::Index(left, right) => {
                visit(left);
                visit(right);
            }
            Self::Compare(first, links) => {
                visit(first);
                links.iter().for_each(|(_, operand)| visit(operand));
            }
            Self::Conditional { condition, then, otherwise } => {
                visit(condition);
                visit(then);
                visit(otherwise);
            }
            Self::Slice(start, stop, step) => {
                [start, stop, step].into_iter().flatten().for_each(|bound| visit(bound));
            }
            Self::Call { function, args, keywords } => {
                visit(function);
                args.iter().for_each(&mut *visit);
                keywords.iter().for_each(|(_, value)| visit(value));
            }
            Self::Lambda { body, .. } => visit(body),
            Self::Comprehension { kind, element, clauses } => {
                if let ComprehensionKind::Dict(key) = kind {
                    visit(key);
                }
                visit(element);
                for clause in clauses {
                    visit(&clause.items);
                    clause.conditions.iter().for_each(&mut *visit);
                }
            }
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::Str(_)
            | Self::Name(_)
            | Self::Reference(_) => {}
        }
    }
}
