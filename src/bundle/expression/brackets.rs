//! Parses what is in brackets: tuples, lists, dictionaries, comprehensions.
//!
//! Each function starts after the opening bracket.

use super::ast::{Clause, ComprehensionKind, Expr, precedence as level};
use super::parse::{Parsed, Parser};

impl Parser {
    pub(super) fn rest_of_parentheses(&mut self) -> Parsed {
        if self.take(")") {
            return Ok(Expr::Tuple(Vec::new()));
        }
        let first = self.item()?;
        let expr = if self.next_is_word("for") {
            self.rest_of_comprehension(ComprehensionKind::Generator, first)?
        } else if self.next_is(",") {
            self.rest_of_tuple(first, Some(")"))?
        } else if matches!(first, Expr::Starred(_)) {
            return Err("has a star outside a list, a tuple or a call".to_owned());
        } else {
            first
        };
        self.expect(")")?;
        Ok(expr)
    }

    pub(super) fn rest_of_list(&mut self) -> Parsed {
        if self.take("]") {
            return Ok(Expr::List(Vec::new()));
        }
        let first = self.item()?;
        let expr = if self.next_is_word("for") {
            self.rest_of_comprehension(ComprehensionKind::List, first)?
        } else {
            Expr::List(self.rest_of_items(first, Some("]"))?)
        };
        self.expect("]")?;
        Ok(expr)
    }

    /// Parses the rest of `a, b, c` after `a`; a trailing comma is allowed.
    pub(super) fn rest_of_items(&mut self, first: Expr, end: Option<&str>) -> Parsed<Vec<Expr>> {
        let mut items = vec![first];
        while self.take(",") {
            if end.map_or(self.peek().is_none(), |end| self.next_is(end)) {
                break;
            }
            items.push(self.item()?);
        }
        Ok(items)
    }

    pub(super) fn rest_of_tuple(&mut self, first: Expr, end: Option<&str>) -> Parsed {
        Ok(Expr::Tuple(self.rest_of_items(first, end)?))
    }

    pub(super) fn rest_of_braces(&mut self) -> Parsed {
        if self.take("}") {
            return Ok(Expr::Dict(Vec::new()));
        }
        if !self.next_is("**") {
            let first = self.item()?;
            if !self.next_is(":") {
                let expr = if self.next_is_word("for") {
                    self.rest_of_comprehension(ComprehensionKind::Set, first)?
                } else {
                    Expr::Set(self.rest_of_items(first, Some("}"))?)
                };
                self.expect("}")?;
                return Ok(expr);
            }
            self.expect(":")?;
            let value = self.expression()?;
            if self.next_is_word("for") {
                let kind = ComprehensionKind::Dict(Box::new(first));
                let expr = self.rest_of_comprehension(kind, value)?;
                self.expect("}")?;
                return Ok(expr);
            }
            return self.rest_of_dict(vec![(Some(first), value)]);
        }
        self.expect("**")?;
        let first = self.expression()?;
        self.rest_of_dict(vec![(None, first)])
    }

    pub(super) fn rest_of_dict(&mut self, mut entries: Vec<(Option<Expr>, Expr)>) -> Parsed {
        while self.take(",") && !self.next_is("}") {
            if self.take("**") {
                entries.push((None, self.expression()?));
            } else {
                let key = self.expression()?;
                self.expect(":")?;
                entries.push((Some(key), self.expression()?));
            }
        }
        self.expect("}")?;
        Ok(Expr::Dict(entries))
    }

    pub(super) fn rest_of_comprehension(
        &mut self,
        kind: ComprehensionKind,
        element: Expr,
    ) -> Parsed {
        let mut clauses = Vec::new();
        while self.take_word("for") {
            self.link()?;
            clauses.push(self.clause()?);
        }
        Ok(Expr::Comprehension { kind, element: Box::new(element), clauses })
    }

    fn clause(&mut self) -> Parsed<Clause> {
        let bracketed = self.take("(");
        let mut targets = vec![self.name()?];
        while self.take(",") {
            targets.push(self.name()?);
        }
        if bracketed {
            self.expect(")")?;
        }
        self.expect_word("in")?;
        let items = self.operation(level::OR)?;
        let mut conditions = Vec::new();
        while self.take_word("if") {
            conditions.push(self.operation(level::OR)?);
        }
        Ok(Clause { targets, items, conditions })
    }
}
