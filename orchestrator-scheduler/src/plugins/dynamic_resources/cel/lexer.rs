//! Splits the text of an expression into tokens.

use super::value::Value;

/// A token, and where it starts, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Name(String),
    /// A whole number without its sign: the least integer has no positive counterpart.
    Whole(u64),
    Literal(Value),
    /// An operator or a bracket.
    Symbol(&'static str),
    End,
}

/// Longer ones before those that they begin with.
const SYMBOLS: [&str; 24] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "?", ":", ".", ",", "(", ")", "[", "]", "{", "}", "+", "-", "*",
    "/", "%",
];

/// All tokens, with [`Kind::End`] last; or where and why there is none.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, (usize, String)> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let kind = lexer.token().map_err(|message| (at, format!("Syntax error: {message}")))?;
        let ended = kind == Kind::End;
        tokens.push(Token { kind, at });
        if ended {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        loop {
            let trimmed = self.rest().trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
            self.at = self.text.len() - trimmed.len();
            if !trimmed.starts_with("//") {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    /// Takes what `belongs` accepts.
    fn take(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(|character| !belongs(character)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn token(&mut self) -> Result<Kind, String> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(Kind::End) };
        if let Some(literal) = self.text_literal()? {
            return Ok(Kind::Literal(literal));
        }
        if first.is_ascii_digit() || first == '.' && rest[1..].starts_with(|next: char| next.is_ascii_digit()) {
            return self.number();
        }
        if first.is_ascii_alphabetic() || first == '_' {
            let name = self.take(|character| character.is_ascii_alphanumeric() || character == '_');
            return Ok(match name {
                "true" => Kind::Literal(Value::Bool(true)),
                "false" => Kind::Literal(Value::Bool(false)),
                "null" => Kind::Literal(Value::Null),
                "in" => Kind::Symbol("in"),
                name => Kind::Name(name.to_owned()),
            });
        }
        let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol));
        let symbol = symbol.ok_or_else(|| format!("token recognition error at: '{first}'"))?;
        self.at += symbol.len();
        Ok(Kind::Symbol(symbol))
    }

    fn number(&mut self) -> Result<Kind, String> {
        let invalid = || "invalid number literal".to_owned();
        if let Some(digits) = self.rest().strip_prefix("0x").or_else(|| self.rest().strip_prefix("0X")) {
            let length = digits.find(|digit: char| !digit.is_ascii_hexdigit()).unwrap_or(digits.len());
            let value = u64::from_str_radix(&digits[..length], 16).map_err(|_| invalid())?;
            self.at += 2 + length;
            return Ok(self.whole(value));
        }
        let start = self.at;
        self.take(|digit| digit.is_ascii_digit());
        let mut whole = true;
        if self.rest().starts_with('.') && self.rest()[1..].starts_with(|next: char| next.is_ascii_digit()) {
            self.at += 1;
            self.take(|digit| digit.is_ascii_digit());
            whole = false;
        }
        if self.rest().starts_with(['e', 'E']) {
            self.at += 1;
            self.at += usize::from(self.rest().starts_with(['+', '-']));
            whole = false;
            if self.take(|digit| digit.is_ascii_digit()).is_empty() {
                return Err(invalid());
            }
        }
        let text = &self.text[start..self.at];
        if whole {
            let value = text.parse().map_err(|_| "invalid int literal".to_owned())?;
            return Ok(self.whole(value));
        }
        text.parse().map(|value| Kind::Literal(Value::Double(value))).map_err(|_| invalid())
    }

    fn whole(&mut self, value: u64) -> Kind {
        if !self.rest().starts_with(['u', 'U']) {
            return Kind::Whole(value);
        }
        self.at += 1;
        Kind::Literal(Value::Uint(value))
    }

    /// A string or bytes, if that is what comes.
    fn text_literal(&mut self) -> Result<Option<Value>, String> {
        let rest = self.rest();
        // Further than that is no prefix, and is not looked at, or reading would take the square of the length.
        let quote = rest.bytes().take(3).position(|byte| matches!(byte, b'"' | b'\''));
        let prefix = quote.map(|length| rest[..length].to_ascii_lowercase());
        let Some(prefix) = prefix.filter(|prefix| matches!(prefix.as_str(), "" | "r" | "b" | "rb" | "br")) else {
            return Ok(None);
        };
        let (raw, is_bytes) = (prefix.contains('r'), prefix.contains('b'));
        let quoted = &rest[prefix.len()..];
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| quoted.starts_with(quote)).unwrap_or("\"");
        self.at += prefix.len() + quote.len();
        let mut out = Vec::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                break;
            }
            let next = rest.chars().next().filter(|next| quote.len() == 3 || !matches!(*next, '\n' | '\r'));
            let next = next.ok_or("unterminated string literal")?;
            self.at += next.len_utf8();
            if next == '\\' && !raw {
                self.escape(is_bytes, &mut out)?;
            } else {
                out.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        if is_bytes {
            return Ok(Some(Value::Bytes(out.into())));
        }
        String::from_utf8(out).map(|text| Some(Value::text(&text))).map_err(|_| "invalid string literal".to_owned())
    }

    fn escape(&mut self, is_bytes: bool, out: &mut Vec<u8>) -> Result<(), String> {
        let invalid = || "unable to unescape next character in string".to_owned();
        let escaped = self.rest().chars().next().ok_or_else(invalid)?;
        let simple = match escaped {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '?' | '"' | '\'' | '`' => escaped as u8,
            _ => 0,
        };
        if simple != 0 {
            self.at += 1;
            out.push(simple);
            return Ok(());
        }
        let (skip, length, radix) = match escaped {
            'x' | 'X' => (1, 2, 16),
            'u' if !is_bytes => (1, 4, 16),
            'U' if !is_bytes => (1, 8, 16),
            '0'..='3' => (0, 3, 8),
            _ => return Err(invalid()),
        };
        let digits = self.rest().get(skip..skip + length).ok_or_else(invalid)?;
        let code = u32::from_str_radix(digits, radix).map_err(|_| invalid())?;
        self.at += skip + length;
        if is_bytes {
            out.push(u8::try_from(code).map_err(|_| invalid())?);
        } else {
            let character = char::from_u32(code).ok_or_else(invalid)?;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Kind {
        tokens(text).unwrap().swap_remove(0).kind
    }

    #[test]
    fn literals_are_read_as_the_language_has_them() {
        assert_eq!(literal("0x1F"), Kind::Whole(31));
        assert_eq!(literal("7u"), Kind::Literal(Value::Uint(7)));
        assert_eq!(literal(".5e1"), Kind::Literal(Value::Double(5.0)));
        assert_eq!(literal(r#""a\n\x41\u00e9\101""#), Kind::Literal(Value::text("a\nA\u{e9}A")));
        assert_eq!(literal(r"r'a\n'"), Kind::Literal(Value::text("a\\n")));
        assert_eq!(literal("'''a\n'b'''"), Kind::Literal(Value::text("a\n'b")));
        assert_eq!(literal(r"b'\xff'"), Kind::Literal(Value::Bytes([255].into())));
        assert_eq!(literal("bar"), Kind::Name("bar".to_owned()));
        assert_eq!(literal("// nothing\n in"), Kind::Symbol("in"));
        for broken in ["'a", "'\\q'", "1e", "99999999999999999999", "#", "a = b", "'\\ud800'"] {
            assert!(tokens(broken).is_err(), "{broken}");
        }
    }
}
