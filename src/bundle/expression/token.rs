//! Splits an expression into tokens.

use super::super::id::{Reference, scan};

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Int(i64),
    Float(f64),
    Str(String),
    /// A name or a keyword.
    Name(String),
    /// `@id`.
    Reference(Reference),
    /// An operator or a bracket.
    Op(&'static str),
}

/// Operators and brackets; longer ones come before their prefixes.
const OPERATORS: [&str; 38] = [
    "**", "//", "==", "!=", "<=", ">=", "<<", ">>", ":=", "->", "+", "-", "*", "/", "%", "(", ")",
    "[", "]", "{", "}", ",", ":", ".", "<", ">", "=", "&", "|", "^", "~", ";", "!", "?", "@", "`",
    "$", "\\",
];

/// Splits `source` (the text after the `$`) into tokens. The error says what cannot be read.
pub(super) fn tokenise(source: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = source.trim();
    while let Some(first) = rest.chars().next() {
        let (token, length) = if first == '@' {
            let length = scan(&rest[1..]);
            (Token::Reference(Reference::parse(&rest[1..1 + length])), 1 + length)
        } else if first.is_ascii_digit() || is_point_number(rest) {
            number(rest)?
        } else if first == '\'' || first == '"' {
            string(rest, false)?
        } else if first.is_alphabetic() || first == '_' {
            name_or_prefixed_string(rest)?
        } else {
            operator(rest).ok_or_else(|| format!("cannot read {first:?}"))?
        };
        tokens.push(token);
        rest = rest[length..].trim_start();
    }
    Ok(tokens)
}

fn is_point_number(text: &str) -> bool {
    text.starts_with('.') && text[1..].starts_with(|c: char| c.is_ascii_digit())
}

fn operator(text: &str) -> Option<(Token, usize)> {
    let op = OPERATORS.into_iter().find(|op| text.starts_with(op))?;
    Some((Token::Op(op), op.len()))
}

fn name_or_prefixed_string(text: &str) -> Result<(Token, usize), String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let length = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(length);
    if !rest.starts_with(['\'', '"']) {
        return Ok((Token::Name(name.to_owned()), length));
    }
    match name {
        "r" | "R" => string(rest, true).map(|(token, more)| (token, length + more)),
        "u" | "U" => string(rest, false).map(|(token, more)| (token, length + more)),
        _ => Err(format!("strings written {name}'...' are not supported")),
    }
}

fn number(text: &str) -> Result<(Token, usize), String> {
    let radix = match text.get(..2) {
        Some("0x" | "0X") => 16,
        Some("0o" | "0O") => 8,
        Some("0b" | "0B") => 2,
        _ => return decimal(text),
    };
    let length = 2 + text[2..].bytes().take_while(|b| b.is_ascii_alphanumeric()).count();
    let digits = text[2..length].replace('_', "");
    let value = i64::from_str_radix(&digits, radix);
    value
        .map(|value| (Token::Int(value), length))
        .map_err(|_| format!("cannot read the number {}", &text[..length]))
}

fn decimal(text: &str) -> Result<(Token, usize), String> {
    let bytes = text.as_bytes();
    let digits_from = |start: usize| {
        bytes[start..].iter().take_while(|b| b.is_ascii_digit() || **b == b'_').count()
    };
    let mut length = digits_from(0);
    let mut is_float = false;
    if bytes.get(length) == Some(&b'.') {
        is_float = true;
        length += 1 + digits_from(length + 1);
    }
    if matches!(bytes.get(length), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
        let start = length + 1 + sign;
        let exponent = bytes.get(start..).map_or(0, |_| digits_from(start));
        if exponent > 0 {
            is_float = true;
            length = start + exponent;
        }
    }
    let digits = text[..length].replace('_', "");
    let wrong = || format!("cannot read the number {}", &text[..length]);
    if text[length..].starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        return Err(format!("cannot read the number at {:?}", excerpt(text)));
    }
    if is_float {
        let value: f64 = digits.parse().map_err(|_| wrong())?;
        if !value.is_finite() {
            return Err(format!("the number {digits} is not finite"));
        }
        return Ok((Token::Float(value), length));
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().any(|b| b != b'0') {
        return Err(wrong());
    }
    let value = digits.parse().map_err(|_| format!("the integer {digits} exceeds 64 bits"))?;
    Ok((Token::Int(value), length))
}

/// Reads a string literal at the start of `text`, after its prefix.
fn string(text: &str, raw: bool) -> Result<(Token, usize), String> {
    let quote = ["'''", "\"\"\"", "'", "\""].into_iter().find(|q| text.starts_with(q));
    let quote = quote.ok_or_else(|| "string without quotes".to_owned())?;
    let unclosed = || format!("the string {:?} is not closed", excerpt(text));
    let mut value = String::new();
    let mut at = quote.len();
    loop {
        let rest = &text[at..];
        if rest.starts_with(quote) {
            return Ok((Token::Str(value), at + quote.len()));
        }
        let c = rest.chars().next().ok_or_else(unclosed)?;
        if c == '\n' && quote.len() == 1 {
            return Err(unclosed());
        }
        at += c.len_utf8();
        if c != '\\' {
            value.push(c);
            continue;
        }
        let escaped = text[at..].chars().next().ok_or_else(unclosed)?;
        at += escaped.len_utf8();
        if raw {
            value.extend(['\\', escaped]);
            continue;
        }
        at += unescape(escaped, &text[at..], &mut value)?;
    }
}

/// Appends what the escape `\c` means and returns how many bytes of `rest` belong to it.
fn unescape(c: char, rest: &str, value: &mut String) -> Result<usize, String> {
    let plain = match c {
        '\n' => return Ok(0),
        '\\' | '\'' | '"' => c,
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        '0' if !rest.starts_with(|d: char| d.is_digit(8)) => '\0',
        'x' | 'u' | 'U' => {
            let length = match c {
                'x' => 2,
                'u' => 4,
                _ => 8,
            };
            let code = rest.get(..length).and_then(|hex| u32::from_str_radix(hex, 16).ok());
            let decoded = code.and_then(char::from_u32);
            value.push(decoded.ok_or_else(|| format!("cannot read the escape \\{c}"))?);
            return Ok(length);
        }
        _ => return Err(format!("the escape \\{c} is not supported")),
    };
    value.push(plain);
    Ok(0)
}

/// Returns the first characters of a text, for a message.
fn excerpt(text: &str) -> String {
    text.chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(source: &str) -> Token {
        let tokens = tokenise(source).unwrap();
        assert_eq!(tokens.len(), 1, "{source}: {tokens:?}");
        tokens[0].clone()
    }

    #[test]
    fn numbers() {
        assert_eq!(one("1_000"), Token::Int(1000));
        assert_eq!(one("0x1F"), Token::Int(31));
        assert_eq!(one("1."), Token::Float(1.0));
        assert_eq!(one(".5e-3"), Token::Float(0.0005));
        assert_eq!(one("2E2"), Token::Float(200.0));
        for wrong in ["012", "1e999", "99999999999999999999", "0xg", "1e", "1j"] {
            assert!(tokenise(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn strings() {
        assert_eq!(one(r#"'a\'b\n\x41'"#), Token::Str("a'b\nA".into()));
        assert_eq!(one(r#"r"a\n""#), Token::Str("a\\n".into()));
        assert_eq!(one("'''a'b'''"), Token::Str("a'b".into()));
        for wrong in ["'a", "f'{x}'", "b'x'", r"'\N{DASH}'", r"'\xg1'", "'\\"] {
            assert!(tokenise(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn references_take_words_and_separators() {
        let tokens = tokenise("@a#b::0+@c.d").unwrap();
        assert_eq!(tokens[0], Token::Reference(Reference::parse("a#b#0")));
        assert_eq!(tokens[1], Token::Op("+"));
        assert_eq!(tokens[2], Token::Reference(Reference::parse("c")));
        assert_eq!(tokens[3], Token::Op("."));
    }
}
