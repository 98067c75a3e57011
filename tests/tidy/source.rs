//! A file as the rules see it: its code without comments and literals, its comments without code.

/// One file of the tree.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the root of the tree, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text with all comments and the contents of all literals blanked, byte for byte.
    pub(crate) code: String,
    /// The text with everything blanked that is not a comment.
    pub(crate) comments: String,
}

impl Source {
    pub(crate) fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        let (code, comments) = if path.ends_with(".rs") { split(&text) } else { (text.clone(), String::new()) };
        Self { path, text, code, comments }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The folder of the package that the file belongs to; empty for the root package.
    pub(crate) fn package(&self) -> &str {
        self.path
            .split_once('/')
            .map(|(first, _)| first)
            .filter(|first| first.starts_with("orchestrator-"))
            .unwrap_or("")
    }

    /// The path inside of its package.
    pub(crate) fn inner_path(&self) -> &str {
        self.path.strip_prefix(self.package()).unwrap_or(&self.path).trim_start_matches('/')
    }

    /// Whether the file is compiled into a library, tests inside of it set apart.
    pub(crate) fn is_library(&self) -> bool {
        let inner = self.inner_path();
        let (folders, file) = inner.rsplit_once('/').unwrap_or(("", inner));
        let is_test =
            file == "tests.rs" || file.ends_with("_tests.rs") || folders.split('/').any(|name| name == "tests");
        self.is_rust() && inner.starts_with("src/") && !inner.starts_with("src/bin/") && !is_test
    }

    /// The code without what is compiled for tests only.
    pub(crate) fn code_without_tests(&self) -> String {
        let mut code = self.code.clone();
        while let Some(start) = code.find("#[cfg(test)]") {
            let end = item_end(&code, start);
            let blank: String = code[start..end].chars().map(blanked).collect();
            code.replace_range(start..end, &blank);
        }
        code
    }
}

/// The line that a byte of a text is in, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Where words stand in code: neither inside of a longer word nor after a path.
pub(crate) fn words(code: &str, word: &str) -> Vec<usize> {
    let is_word = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let bytes = code.as_bytes();
    let alone = |&start: &usize| {
        !is_word(start.checked_sub(1).map(|before| bytes[before])) && !is_word(bytes.get(start + word.len()).copied())
    };
    code.match_indices(word).map(|(start, _)| start).filter(alone).collect()
}

/// The end of the item that starts here: its semicolon, or the brace that closes it.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0usize;
    for (index, byte) in code.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return index + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return index + 1,
            _ => {}
        }
    }
    code.len()
}

fn blanked(character: char) -> char {
    if character == '\n' { '\n' } else { ' ' }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Code,
    LineComment,
    BlockComment(usize),
    /// A literal, the number of `#` that end it, and whether a backslash escapes.
    Text(usize, bool),
    Character,
}

/// Separates code from comments. Lines keep their numbers.
fn split(text: &str) -> (String, String) {
    let characters: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::new(), String::new());
    let mut state = State::Code;
    let mut index = 0;
    while index < characters.len() {
        let (next, taken) = step(state, &characters[index..]);
        let comment = |state| matches!(state, State::LineComment | State::BlockComment(_));
        for &character in &characters[index..index + taken] {
            let (into_code, into_comments) = match (state, next) {
                (state, next) if comment(state) || comment(next) => (blanked(character), character),
                (State::Code, State::Code) => (character, blanked(character)),
                // The quotes stay, so that code keeps its shape.
                (State::Code, _) | (_, State::Code) => (character, blanked(character)),
                _ => (blanked(character), blanked(character)),
            };
            code.push(into_code);
            comments.push(into_comments);
        }
        state = next;
        index += taken;
    }
    (code, comments)
}

/// The state after the next characters, and how many they are.
fn step(state: State, rest: &[char]) -> (State, usize) {
    match (state, rest) {
        (State::Code, ['/', '/', ..]) => (State::LineComment, 2),
        (State::Code, ['/', '*', ..]) => (State::BlockComment(1), 2),
        (State::Code, ['"', ..]) => (State::Text(0, true), 1),
        (State::Code, ['r', '#' | '"', ..]) => raw_start(rest),
        (State::Code, ['\'', '\\', _, ..]) => (State::Character, 3),
        (State::Code, ['\'', _, '\'', ..]) => (State::Code, 3),
        // A word is taken whole, so that an `r` at its end starts no raw literal.
        (State::Code, [first, ..]) if first.is_alphanumeric() || *first == '_' => {
            let length = rest.iter().take_while(|next| next.is_alphanumeric() || **next == '_').count();
            let prefix = length <= 2 && rest.get(length) == Some(&'"') && rest[length - 1] == 'r';
            (State::Code, if prefix { length - 1 } else { length }.max(1))
        }
        (State::LineComment, ['\n', ..]) => (State::Code, 1),
        (State::BlockComment(depth), ['/', '*', ..]) => (State::BlockComment(depth + 1), 2),
        (State::BlockComment(1), ['*', '/', ..]) => (State::Code, 2),
        (State::BlockComment(depth), ['*', '/', ..]) => (State::BlockComment(depth - 1), 2),
        (State::Text(_, true), ['\\', _, ..]) => (state, 2),
        (State::Text(marks, _), ['"', after @ ..])
            if after.iter().take_while(|next| **next == '#').count() >= marks =>
        {
            (State::Code, 1 + marks)
        }
        (State::Character, ['\'', ..]) => (State::Code, 1),
        _ => (state, 1),
    }
}

/// `r"`, `r#"` and so on start a literal; `r#type` is a name.
fn raw_start(rest: &[char]) -> (State, usize) {
    let marks = rest[1..].iter().take_while(|next| **next == '#').count();
    if rest.get(1 + marks) == Some(&'"') { (State::Text(marks, false), 2 + marks) } else { (State::Code, 1 + marks) }
}

#[test]
fn comments_and_literals_are_no_code() {
    let text = "let a = \"b \\\" c\"; // d\nlet e = r#\"f \" g\"#; /* h /* i */ j */ let k: &'l u8 = b'm'; '\\''; n\n";
    let (code, comments) = split(text);
    assert_eq!(
        code.split_whitespace().collect::<Vec<_>>().join(" "),
        "let a = \" \"; let e = r#\" \"#; let k: &'l u8 = b'm'; '\\''; n"
    );
    assert_eq!(comments.split_whitespace().collect::<Vec<_>>().join(" "), "// d /* h /* i */ j */");
    assert_eq!(code.matches('\n').count(), 2);
}

#[test]
fn tests_inside_of_a_library_are_set_apart() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { c(); } }\n#[cfg(test)]\nuse d;\nfn e() {}\n";
    let code = Source::new("src/lib.rs", text).code_without_tests();
    assert_eq!(code.split_whitespace().collect::<Vec<_>>().join(" "), "fn a() {} fn e() {}");
}

#[test]
fn places_of_files() {
    let source = |path: &str| Source::new(path, "");
    assert_eq!(source("orchestrator-core/src/a/b.rs").package(), "orchestrator-core");
    assert_eq!(source("src/a.rs").package(), "");
    for path in ["src/a.rs", "orchestrator-core/src/a.rs"] {
        assert!(source(path).is_library(), "{path}");
    }
    for path in [
        "tests/a.rs",
        "examples/a.rs",
        "orchestrator-core/src/bin/a.rs",
        "orchestrator-core/src/a/tests.rs",
        "orchestrator-core/src/decide_tests.rs",
        "orchestrator-core/tests/a.rs",
        "orchestrator-core/Cargo.toml",
    ] {
        assert!(!source(path).is_library(), "{path}");
    }
}
