//! HTML on its way through the proxy: links in it lead through the proxy, too. Pure, and bounded in memory.
//!
//! Upstream: `rewriteHTML` of `k8s.io/apimachinery/pkg/util/proxy/transport.go`.

use super::headers::Link;
use crate::limits;

/// Attributes that hold a link, by the elements that have them.
const LINKS: [(&str, &[&str]); 26] = [
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "formaction", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("track", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is no HTML.
const RAW: [&str; 10] =
    ["iframe", "noembed", "noframes", "noscript", "plaintext", "script", "style", "textarea", "title", "xmp"];

/// Where in a page one is.
#[derive(Debug)]
enum State {
    Text,
    /// Behind a `<`: what follows is held until it is complete.
    Tag {
        /// The quote that is open, if one is.
        quote: Option<u8>,
    },
    /// In a comment, with how many dashes stand before.
    Comment {
        dashes: usize,
    },
    /// In something else between `<` and `>`.
    Other,
    /// In an element that holds no HTML. What may be its end is held.
    Raw(&'static str),
}

/// A page in the making.
#[derive(Debug)]
pub(super) struct Rewriter {
    link: Link,
    state: State,
    held: Vec<u8>,
}

impl Rewriter {
    pub(super) fn new(link: Link) -> Self {
        Self { link, state: State::Text, held: Vec::new() }
    }

    /// Takes in some of the page, and gives what of it is certain.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.step(*byte, out);
        }
    }

    /// Gives the rest.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        match &mut self.state {
            State::Text if byte == b'<' => {
                self.held.push(byte);
                self.state = State::Tag { quote: None };
            }
            State::Text => out.push(byte),
            State::Tag { quote } => {
                self.held.push(byte);
                match *quote {
                    Some(open) if open == byte => *quote = None,
                    None if self.held.len() > 2 && matches!(byte, b'"' | b'\'') => *quote = Some(byte),
                    _ => {}
                }
                let is_open = quote.is_some();
                self.in_tag(byte, is_open, out);
            }
            State::Comment { dashes } => {
                out.push(byte);
                match byte {
                    b'-' => *dashes += 1,
                    b'>' if *dashes >= 2 => self.state = State::Text,
                    _ => *dashes = 0,
                }
            }
            State::Other => {
                out.push(byte);
                if byte == b'>' {
                    self.state = State::Text;
                }
            }
            State::Raw(name) => {
                let name = *name;
                self.in_raw(byte, name, out);
            }
        }
    }

    /// One more byte of what began with `<` is held.
    fn in_tag(&mut self, byte: u8, is_open: bool, out: &mut Vec<u8>) {
        let next = match (self.held.as_slice(), byte) {
            ([_, b'!'], _) | ([_, b'!', b'-'], _) => return,
            ([_, b'!', b'-', b'-'], _) => State::Comment { dashes: 2 },
            ([_, b'!', ..] | [_, b'?', ..] | [_, b'/', ..], b'>') => State::Text,
            ([_, b'!', ..] | [_, b'?', ..] | [_, b'/', ..], _) => State::Other,
            ([_, b'<'], _) => {
                // The second one may begin a tag.
                out.extend(self.held.pop());
                return;
            }
            ([_, first], _) if !first.is_ascii_alphabetic() => State::Text,
            (_, b'>') if !is_open => {
                let name = name_of(&self.held);
                if let Some(changed) = rewrite(&self.held, &name, &self.link) {
                    self.held = changed;
                }
                RAW.into_iter().find(|raw| *raw == name).map_or(State::Text, State::Raw)
            }
            _ if self.held.len() > limits::HTML_TAG_BYTES => State::Text,
            _ => return,
        };
        out.append(&mut self.held);
        self.state = next;
    }

    /// Looks for `</name` and what ends a name.
    fn in_raw(&mut self, byte: u8, name: &str, out: &mut Vec<u8>) {
        let at = self.held.len();
        let expected = match at {
            0 => Some(b'<'),
            1 => Some(b'/'),
            _ => name.as_bytes().get(at - 2).copied(),
        };
        match expected {
            Some(expected) if byte.eq_ignore_ascii_case(&expected) => self.held.push(byte),
            None if byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>') => {
                out.append(&mut self.held);
                out.push(byte);
                self.state = if byte == b'>' { State::Text } else { State::Other };
            }
            _ => {
                out.append(&mut self.held);
                if byte == b'<' { self.held.push(byte) } else { out.push(byte) }
            }
        }
    }
}

/// The name of the element that a tag begins.
fn name_of(tag: &[u8]) -> String {
    let name = tag.iter().skip(1).take_while(|byte| !byte.is_ascii_whitespace() && !matches!(byte, b'/' | b'>'));
    name.map(|byte| char::from(byte.to_ascii_lowercase())).collect()
}

/// The tag with other links; `None` where all stay.
fn rewrite(tag: &[u8], name: &str, link: &Link) -> Option<Vec<u8>> {
    let (_, attributes) = LINKS.into_iter().find(|(element, _)| *element == name)?;
    let mut changed = Vec::new();
    let mut done = 0;
    for attribute in Attributes::of(tag, name.len() + 1) {
        if !attributes.contains(&attribute.name.as_str()) {
            continue;
        }
        let Some(value) = tag.get(attribute.from..attribute.to) else { continue };
        let Ok(value) = std::str::from_utf8(value) else { continue };
        let Some(through) = link.through(&unescape(value.trim_matches(['"', '\'']))) else { continue };
        changed.extend_from_slice(tag.get(done..attribute.from).unwrap_or_default());
        changed.extend_from_slice(format!("\"{}\"", escape(&through)).as_bytes());
        done = attribute.to;
    }
    (done > 0).then(|| {
        changed.extend_from_slice(tag.get(done..).unwrap_or_default());
        changed
    })
}

/// An attribute with a value, and where that stands, with its quotes.
struct Attribute {
    name: String,
    from: usize,
    to: usize,
}

/// The attributes of a tag.
struct Attributes<'a> {
    tag: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    fn of(tag: &'a [u8], at: usize) -> Self {
        Self { tag, at }
    }

    /// Goes on while bytes are of a kind, and gives where that began.
    fn pass(&mut self, is_of: impl Fn(u8) -> bool) -> usize {
        let from = self.at;
        while self.tag.get(self.at).is_some_and(|byte| is_of(*byte)) {
            self.at += 1;
        }
        from
    }
}

impl Iterator for Attributes<'_> {
    type Item = Attribute;

    fn next(&mut self) -> Option<Attribute> {
        let is_space = |byte: u8| byte.is_ascii_whitespace();
        loop {
            self.pass(|byte| is_space(byte) || byte == b'/');
            let from = self.pass(|byte| !is_space(byte) && !matches!(byte, b'/' | b'>' | b'='));
            let name = String::from_utf8_lossy(self.tag.get(from..self.at)?).to_ascii_lowercase();
            self.pass(is_space);
            match self.tag.get(self.at)? {
                b'=' => self.at += 1,
                b'>' => return None,
                _ => continue,
            }
            self.pass(is_space);
            let from = self.at;
            match self.tag.get(self.at)? {
                quote @ (b'"' | b'\'') => {
                    self.at += 1;
                    self.pass(|byte| byte != *quote);
                    self.at += 1;
                }
                _ => drop(self.pass(|byte| !is_space(byte) && byte != b'>')),
            }
            return Some(Attribute { name, from, to: self.at.min(self.tag.len()) });
        }
    }
}

const ESCAPES: [(&str, &str); 5] = [("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&#34;", "\""), ("&#39;", "'")];

fn escape(text: &str) -> String {
    ESCAPES.into_iter().fold(text.to_owned(), |text, (escaped, plain)| text.replace(plain, escaped))
}

fn unescape(text: &str) -> String {
    let text = text.replace("&quot;", "\"");
    ESCAPES.into_iter().rev().fold(text, |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn link() -> Link {
        Link { prefix: "/proxy".to_owned(), host: "10.0.0.1:80".to_owned(), asked_host: "server".to_owned() }
    }

    /// The page in pieces of this size.
    fn in_pieces(page: &[u8], size: usize) -> Vec<u8> {
        let (mut rewriter, mut out) = (Rewriter::new(link()), Vec::new());
        for piece in page.chunks(size) {
            rewriter.push(piece, &mut out);
        }
        rewriter.finish(&mut out);
        out
    }

    fn rewritten(page: &str) -> String {
        String::from_utf8(in_pieces(page.as_bytes(), page.len().max(1))).unwrap()
    }

    #[test]
    fn links_of_elements_lead_through_the_proxy() {
        for (page, expected) in [
            ("<a href=\"/x?a=1&amp;b=2\">x</a>", "<a href=\"/proxy/x?a=1&amp;b=2\">x</a>"),
            ("<A class=c HREF='/x' id=i>", "<A class=c HREF=\"/proxy/x\" id=i>"),
            ("<img src=/x/ longdesc=/y>", "<img src=\"/proxy/x/\" longdesc=\"/proxy/y\">"),
            ("<a title='>' href = /x>", "<a title='>' href = \"/proxy/x\">"),
            ("<form action=\"http://10.0.0.1:80/x\"/>", "<form action=\"/proxy/x\"/>"),
            ("1 <<a href=/x>", "1 <<a href=\"/proxy/x\">"),
            ("<script src=\"/x.js\"></script><p>", "<script src=\"/proxy/x.js\"></script><p>"),
        ] {
            assert_eq!(rewritten(page), expected);
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for page in [
            "<a href=\"x\">",
            "<a href=\"https://elsewhere/x\">",
            "<a href=\"/proxy/x\">",
            "<p href=\"/x\">",
            "<a title=\"/x\" data-href=\"/x\">",
            "<script>document.write('<a href=\"/x\">') </scripted></script >",
            "<!-- <a href=\"/x\"> -- > -->",
            "<!DOCTYPE html><?xml <a href=?>",
            "</a href=\"/x\">",
            "1 < 2 <",
            "<a href=\"/x",
            "<a href>",
            "<a =/x>",
        ] {
            assert_eq!(rewritten(page), page);
        }
        let long = format!("<a title=\"{}\" href=\"/x\">", "x".repeat(limits::HTML_TAG_BYTES));
        assert_eq!(rewritten(&long), long);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_a_page_comes(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "<", ">", "\"", "'", "=", "/", "-", "!", "a", " href=", "<a href=/x>", "<script>", "</script>", "<!--", "-->", " ",
                ]),
                0..40,
            ),
            size in 1_usize..20,
        ) {
            let page = parts.concat();
            prop_assert_eq!(in_pieces(page.as_bytes(), size), in_pieces(page.as_bytes(), page.len().max(1)));
        }

        #[test]
        fn what_has_no_links_stays(page in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assume!(!page.contains(&b'='));
            prop_assert_eq!(in_pieces(&page, 7), page);
        }
    }
}
