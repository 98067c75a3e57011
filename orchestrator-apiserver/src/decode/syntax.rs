//! What is wrong with a text that is no JSON, in the words of Go's scanner.
//!
//! Upstream: `encoding/json`, whose errors reach clients word by word.

use crate::limits;

/// What Go complains about first; `None` where it takes the text for JSON.
pub(crate) fn complaint(text: &[u8]) -> Option<String> {
    let mut scanner = Scanner { text, at: 0 };
    let scanned = scanner.value(0, "looking for beginning of value").and_then(|()| match scanner.next_letter() {
        None => Ok(()),
        Some(_) => Err(scanner.unexpected("after top-level value")),
    });
    scanned.err()
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// The next letter that is no space, without taking it.
    fn next_letter(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
        self.peek()
    }

    /// The complaint about the next letter, or that there is none.
    fn unexpected(&self, context: &str) -> String {
        let Some(letter) = self.peek() else { return "unexpected end of JSON input".to_owned() };
        format!("invalid character '{}' {context}", quoted(letter))
    }

    fn value(&mut self, depth: usize, context: &str) -> Result<(), String> {
        if depth > limits::OBJECT_DEPTH {
            return Err("exceeded max depth".to_owned());
        }
        match self.next_letter() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.unexpected(context)),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), String> {
        self.at += 1;
        if self.next_letter() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            match self.next_letter() {
                Some(b'"') => self.string()?,
                _ => return Err(self.unexpected("looking for beginning of object key string")),
            }
            if self.next_letter() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.at += 1;
            self.value(depth + 1, "looking for beginning of value")?;
            match self.next_letter() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<(), String> {
        self.at += 1;
        if self.next_letter() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value(depth + 1, "looking for beginning of value")?;
            match self.next_letter() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => return Err(self.unexpected("after array element")),
            }
        }
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                None | Some(0..0x20) => return Err(self.unexpected("in string literal")),
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<(), String> {
        self.at += 1;
        match self.peek() {
            Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
            Some(b'u') => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.peek().is_some_and(|letter| letter.is_ascii_hexdigit()) {
                        return Err(self.unexpected("in \\u hexadecimal character escape"));
                    }
                    self.at += 1;
                }
            }
            _ => return Err(self.unexpected("in string escape code")),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        if self.peek() == Some(b'0') {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digits(&mut self, context: &str) -> Result<(), String> {
        if !self.peek().is_some_and(|letter| letter.is_ascii_digit()) {
            return Err(self.unexpected(context));
        }
        while self.peek().is_some_and(|letter| letter.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for letter in word.bytes() {
            if self.peek() != Some(letter) {
                let context = format!("in literal {word} (expecting '{}')", char::from(letter));
                return Err(self.unexpected(&context));
            }
            self.at += 1;
        }
        Ok(())
    }
}

/// A byte between quotes, as Go's `strconv` writes the letter of that number.
fn quoted(byte: u8) -> String {
    match byte {
        b'\'' => "\\'".to_owned(),
        b'\\' => "\\\\".to_owned(),
        0x07 => "\\a".to_owned(),
        0x08 => "\\b".to_owned(),
        0x0b => "\\v".to_owned(),
        0x0c => "\\f".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' => "\\t".to_owned(),
        0..0x20 | 0x7f => format!("\\x{byte:02x}"),
        0x80..=0xa0 | 0xad => format!("\\u{byte:04x}"),
        _ => char::from(byte).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_those_of_go() {
        for (text, expected) in [
            (&b"{\"a\": [1, true, null, \"x\\u00e9\", -1.5e3]} "[..], None),
            (b"", Some("unexpected end of JSON input")),
            (b"{\"a\"", Some("unexpected end of JSON input")),
            (b"\xcf<", Some("invalid character '\u{cf}' looking for beginning of value")),
            (b"\x9e", Some("invalid character '\\u009e' looking for beginning of value")),
            (b"\0", Some("invalid character '\\x00' looking for beginning of value")),
            (b"'", Some("invalid character '\\'' looking for beginning of value")),
            (b"{a: 1}", Some("invalid character 'a' looking for beginning of object key string")),
            (b"{\"a\" 1}", Some("invalid character '1' after object key")),
            (b"{\"a\": 1 2}", Some("invalid character '2' after object key:value pair")),
            (b"[1 2]", Some("invalid character '2' after array element")),
            (b"[1,]", Some("invalid character ']' looking for beginning of value")),
            (b"{} x", Some("invalid character 'x' after top-level value")),
            (b"nope", Some("invalid character 'o' in literal null (expecting 'u')")),
            (b"\"a\nb\"", Some("invalid character '\\n' in string literal")),
        ] {
            assert_eq!(complaint(text).as_deref(), expected, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn deep_nesting_ends() {
        assert!(complaint("[".repeat(100_000).as_bytes()).is_some());
    }
}
