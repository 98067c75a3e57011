//! Makes a tree of an expression, with macros expanded.

use std::rc::Rc;

use super::{
    functions,
    lexer::{Kind, Token, tokens},
    value::Value,
};

/// How deep expressions may be nested, in operators.
const MOST_NESTING: usize = 128;
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// An expression.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    Literal(Value),
    Name(Rc<str>),
    /// A field; optionally.
    Field(Box<Expr>, Rc<str>, bool),
    Has(Box<Expr>, Rc<str>),
    /// An element; optionally.
    Index(Box<Expr>, Box<Expr>, bool),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    /// Operators of one precedence, from left to right.
    Arithmetic(Box<Expr>, Vec<(char, Expr)>),
    Relation(&'static str, Box<Expr>, Box<Expr>),
    In(Box<Expr>, Box<Expr>),
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Choice(Box<[Expr; 3]>),
    /// Elements; the optional ones are left out where they are nothing.
    List(Vec<(bool, Expr)>),
    Map(Vec<(bool, Expr, Expr)>),
    Call(Rc<str>, Option<Box<Expr>>, Vec<Expr>),
    Loop(Box<Loop>),
    /// A name for a value.
    Bind(Rc<str>, Box<[Expr; 2]>),
    /// A name for what is in an optional value, and whether the result is optional itself.
    OptionalMap(Rc<str>, Box<[Expr; 2]>, bool),
}

/// A macro that looks at each element of a list, or key of a map.
#[derive(Clone, Debug)]
pub(super) struct Loop {
    pub(super) kind: LoopKind,
    pub(super) range: Expr,
    /// The element or key; of two, the index or key, and the element or value.
    pub(super) names: Vec<Rc<str>>,
    pub(super) condition: Option<Expr>,
    pub(super) result: Option<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
}

/// Reads an expression. What is wrong is told as upstream's compiler does.
pub(super) fn parse(text: &str) -> Result<Expr, String> {
    let parsed = tokens(text).and_then(|tokens| Parser { tokens, next: 0, nesting: 0, scope: Vec::new() }.whole());
    parsed.map_err(|(at, message)| {
        let before = &text[..at.min(text.len())];
        let line = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        let shown = text.lines().nth(line).unwrap_or_default();
        let dots = ".".repeat(column);
        format!("compilation failed: ERROR: <input>:{}:{}: {message}\n | {shown}\n | {dots}^", line + 1, column + 1)
    })
}

type Failure = (usize, String);

/// An expression and how deep it is nested.
struct Parsed {
    expr: Expr,
    depth: usize,
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    nesting: usize,
    /// Names that macros have given.
    scope: Vec<Rc<str>>,
}

impl Parser {
    fn whole(mut self) -> Result<Expr, Failure> {
        let parsed = self.expression()?;
        if *self.peek() != Kind::End {
            return Err(self.unexpected());
        }
        Ok(parsed.expr)
    }

    fn peek(&self) -> &Kind {
        self.tokens.get(self.next).map_or(&Kind::End, |token| &token.kind)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |token| token.at)
    }

    fn take(&mut self, symbols: &[&str]) -> Option<&'static str> {
        let Kind::Symbol(symbol) = *self.peek() else { return None };
        symbols.contains(&symbol).then(|| {
            self.next += 1;
            symbol
        })
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Failure> {
        self.take(&[symbol]).map(drop).ok_or_else(|| self.unexpected())
    }

    fn unexpected(&self) -> Failure {
        let shown = match self.peek() {
            Kind::Name(name) => name.clone(),
            Kind::Whole(value) => value.to_string(),
            Kind::Literal(value) => format!("a {}", value.kind()),
            Kind::Symbol(symbol) => (*symbol).to_owned(),
            Kind::End => "<EOF>".to_owned(),
        };
        (self.at(), format!("Syntax error: mismatched input '{shown}'"))
    }

    fn node(&self, expr: Expr, below: usize) -> Result<Parsed, Failure> {
        if below >= MOST_NESTING {
            return Err((self.at(), format!("expression recursion limit exceeded: {MOST_NESTING}")));
        }
        Ok(Parsed { expr, depth: below + 1 })
    }

    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Failure>) -> Result<T, Failure> {
        if self.nesting >= MOST_NESTING {
            return Err((self.at(), format!("expression recursion limit exceeded: {MOST_NESTING}")));
        }
        self.nesting += 1;
        let parsed = parse(self);
        self.nesting -= 1;
        parsed
    }

    fn expression(&mut self) -> Result<Parsed, Failure> {
        self.nested(|parser| {
            let condition = parser.logic("||", Expr::Any, |parser| parser.logic("&&", Expr::All, Self::relation))?;
            if parser.take(&["?"]).is_none() {
                return Ok(condition);
            }
            let then = parser.logic("||", Expr::Any, |parser| parser.logic("&&", Expr::All, Self::relation))?;
            parser.expect(":")?;
            let other = parser.expression()?;
            let depth = condition.depth.max(then.depth).max(other.depth);
            parser.node(Expr::Choice(Box::new([condition.expr, then.expr, other.expr])), depth)
        })
    }

    fn logic(
        &mut self,
        symbol: &str,
        join: impl Fn(Vec<Expr>) -> Expr,
        part: impl Fn(&mut Self) -> Result<Parsed, Failure>,
    ) -> Result<Parsed, Failure> {
        let first = part(self)?;
        if self.take(&[symbol]).is_none() {
            return Ok(first);
        }
        let (mut all, mut depth) = (vec![first.expr], first.depth);
        loop {
            let next = part(self)?;
            depth = depth.max(next.depth);
            all.push(next.expr);
            if self.take(&[symbol]).is_none() {
                return self.node(join(all), depth);
            }
        }
    }

    fn relation(&mut self) -> Result<Parsed, Failure> {
        let mut left = self.sum()?;
        while let Some(operator) = self.take(&["==", "!=", "<", "<=", ">", ">=", "in"]) {
            let right = self.sum()?;
            let depth = left.depth.max(right.depth);
            let (a, b) = (Box::new(left.expr), Box::new(right.expr));
            let expr = if operator == "in" { Expr::In(a, b) } else { Expr::Relation(operator, a, b) };
            left = self.node(expr, depth)?;
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<Parsed, Failure> {
        self.arithmetic(&["+", "-"], |parser| parser.arithmetic(&["*", "/", "%"], Self::unary))
    }

    fn arithmetic(
        &mut self,
        operators: &[&str],
        part: impl Fn(&mut Self) -> Result<Parsed, Failure>,
    ) -> Result<Parsed, Failure> {
        let first = part(self)?;
        let (mut rest, mut depth) = (Vec::new(), first.depth);
        while let Some(operator) = self.take(operators) {
            let next = part(self)?;
            depth = depth.max(next.depth);
            rest.push((operator.chars().next().unwrap_or_default(), next.expr));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        self.node(Expr::Arithmetic(Box::new(first.expr), rest), depth)
    }

    fn unary(&mut self) -> Result<Parsed, Failure> {
        let Some(operator) = self.take(&["!", "-"]) else { return self.member() };
        if let (true, Kind::Whole(value)) = (operator == "-", self.peek().clone()) {
            // The least integer can only be written so.
            let least = i64::try_from(-i128::from(value)).map_err(|_| (self.at(), "invalid int literal".to_owned()))?;
            self.next += 1;
            return self.members(Parsed { expr: Expr::Literal(Value::Int(least)), depth: 1 });
        }
        let operand = self.nested(Self::unary)?;
        let wrap = if operator == "!" { Expr::Not } else { Expr::Negate };
        self.node(wrap(Box::new(operand.expr)), operand.depth)
    }

    fn member(&mut self) -> Result<Parsed, Failure> {
        let primary = self.primary()?;
        self.members(primary)
    }

    /// What follows a value: fields, elements, methods.
    fn members(&mut self, mut of: Parsed) -> Result<Parsed, Failure> {
        loop {
            if self.take(&["."]).is_some() {
                let optional = self.take(&["?"]).is_some();
                let at = self.at();
                let name = self.name()?;
                of = if !optional && self.take(&["("]).is_some() {
                    self.method(of, &name, at)?
                } else {
                    check_field(&of.expr, &name, at)?;
                    self.node(Expr::Field(Box::new(of.expr), name, optional), of.depth)?
                };
            } else if self.take(&["["]).is_some() {
                let optional = self.take(&["?"]).is_some();
                let index = self.expression()?;
                self.expect("]")?;
                let depth = of.depth.max(index.depth);
                of = self.node(Expr::Index(Box::new(of.expr), Box::new(index.expr), optional), depth)?;
            } else {
                return Ok(of);
            }
        }
    }

    fn name(&mut self) -> Result<Rc<str>, Failure> {
        let Kind::Name(name) = self.peek() else { return Err(self.unexpected()) };
        let name = name.as_str().into();
        self.next += 1;
        Ok(name)
    }

    fn primary(&mut self) -> Result<Parsed, Failure> {
        let at = self.at();
        let literal = |value| Ok(Parsed { expr: Expr::Literal(value), depth: 1 });
        match self.peek().clone() {
            Kind::Literal(value) => {
                self.next += 1;
                literal(value)
            }
            Kind::Whole(value) => {
                let value = i64::try_from(value).map_err(|_| (at, "invalid int literal".to_owned()))?;
                self.next += 1;
                literal(Value::Int(value))
            }
            Kind::Name(name) => {
                self.next += 1;
                if RESERVED.contains(&name.as_str()) {
                    return Err((at, format!("Syntax error: reserved identifier: {name}")));
                }
                self.named(&name, at)
            }
            Kind::Symbol("(") => {
                self.next += 1;
                let inner = self.expression()?;
                self.expect(")")?;
                Ok(inner)
            }
            Kind::Symbol("[") => {
                self.next += 1;
                self.list()
            }
            Kind::Symbol("{") => {
                self.next += 1;
                self.map()
            }
            Kind::Symbol(_) | Kind::End => Err(self.unexpected()),
        }
    }

    fn list(&mut self) -> Result<Parsed, Failure> {
        let (mut items, mut depth) = (Vec::new(), 0);
        while self.take(&["]"]).is_none() {
            let optional = self.take(&["?"]).is_some();
            let item = self.expression()?;
            depth = depth.max(item.depth);
            items.push((optional, item.expr));
            if self.take(&[","]).is_none() {
                self.expect("]")?;
                break;
            }
        }
        self.node(Expr::List(items), depth)
    }

    fn map(&mut self) -> Result<Parsed, Failure> {
        let (mut entries, mut depth) = (Vec::new(), 0);
        while self.take(&["}"]).is_none() {
            let optional = self.take(&["?"]).is_some();
            let key = self.expression()?;
            self.expect(":")?;
            let value = self.expression()?;
            depth = depth.max(key.depth).max(value.depth);
            entries.push((optional, key.expr, value.expr));
            if self.take(&[","]).is_none() {
                self.expect("}")?;
                break;
            }
        }
        self.node(Expr::Map(entries), depth)
    }

    /// The arguments of a call, after its bracket.
    fn arguments(&mut self) -> Result<Vec<Parsed>, Failure> {
        let mut arguments = Vec::new();
        while self.take(&[")"]).is_none() {
            arguments.push(self.expression()?);
            if self.take(&[","]).is_none() {
                self.expect(")")?;
                break;
            }
        }
        Ok(arguments)
    }

    /// A variable, a type, a global function, or a namespace of functions.
    fn named(&mut self, name: &str, at: usize) -> Result<Parsed, Failure> {
        let undeclared = |name: &str| Err((at, format!("undeclared reference to '{name}' (in container '')")));
        if self.take(&["("]).is_some() {
            if name == "has" {
                return self.has(at);
            }
            let arguments = self.arguments()?;
            return if functions::is_global(name) { self.call(name, None, arguments) } else { undeclared(name) };
        }
        if self.scope.iter().any(|known| **known == *name) || name == "device" {
            return Ok(Parsed { expr: Expr::Name(name.into()), depth: 1 });
        }
        if let Some(kind) = functions::type_named(name) {
            return Ok(Parsed { expr: Expr::Literal(Value::Type(kind)), depth: 1 });
        }
        if matches!(name, "cel" | "optional" | "sets") && self.take(&["."]).is_some() {
            let function = self.name()?;
            self.expect("(")?;
            if (name, &*function) == ("cel", "bind") {
                return self.bind();
            }
            let qualified = format!("{name}.{function}");
            let arguments = self.arguments()?;
            if functions::is_global(&qualified) {
                return self.call(&qualified, None, arguments);
            }
            return undeclared(&qualified);
        }
        undeclared(name)
    }

    fn call(&self, name: &str, receiver: Option<Parsed>, arguments: Vec<Parsed>) -> Result<Parsed, Failure> {
        let depth = receiver.iter().chain(&arguments).map(|parsed| parsed.depth).max().unwrap_or(0);
        let arguments = arguments.into_iter().map(|argument| argument.expr).collect();
        self.node(Expr::Call(name.into(), receiver.map(|receiver| Box::new(receiver.expr)), arguments), depth)
    }

    fn has(&mut self, at: usize) -> Result<Parsed, Failure> {
        let mut arguments = self.arguments()?;
        match (arguments.pop(), arguments.pop()) {
            (Some(Parsed { expr: Expr::Field(of, name, false), depth }), None) => {
                Ok(Parsed { expr: Expr::Has(of, name), depth })
            }
            _ => Err((at, "invalid argument to has() macro".to_owned())),
        }
    }

    /// `cel.bind(name, value, result)`, after its bracket.
    fn bind(&mut self) -> Result<Parsed, Failure> {
        let name = self.name()?;
        self.expect(",")?;
        let value = self.expression()?;
        self.expect(",")?;
        let result = self.within(std::slice::from_ref(&name), Self::expression)?;
        self.take(&[","]);
        self.expect(")")?;
        let depth = value.depth.max(result.depth);
        self.node(Expr::Bind(name, Box::new([value.expr, result.expr])), depth)
    }

    fn within<T>(
        &mut self,
        names: &[Rc<str>],
        parse: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let outside = self.scope.len();
        self.scope.extend_from_slice(names);
        let parsed = parse(self);
        self.scope.truncate(outside);
        parsed
    }

    /// A method or a macro, after its bracket.
    fn method(&mut self, of: Parsed, name: &str, at: usize) -> Result<Parsed, Failure> {
        let start = self.next;
        if let Some(parsed) = self.macro_call(&of, name)? {
            return Ok(parsed);
        }
        self.next = start;
        let arguments = self.arguments()?;
        if !functions::is_method(name) {
            return Err((at, format!("undeclared reference to '{name}' (in container '')")));
        }
        self.call(name, Some(of), arguments)
    }

    /// `None` if it is no macro.
    fn macro_call(&mut self, of: &Parsed, name: &str) -> Result<Option<Parsed>, Failure> {
        let kind = match name {
            "all" => LoopKind::All,
            "exists" => LoopKind::Exists,
            "exists_one" | "existsOne" => LoopKind::ExistsOne,
            "map" | "transformList" => LoopKind::Map,
            "filter" => LoopKind::Filter,
            "optMap" | "optFlatMap" => return self.optional_map(of, name == "optFlatMap").map(Some),
            _ => return Ok(None),
        };
        let mut names = vec![self.name()?];
        self.expect(",")?;
        let two = name == "transformList" || !matches!(kind, LoopKind::Map | LoopKind::Filter) && self.comma_follows();
        if two {
            names.push(self.name()?);
            self.expect(",")?;
        }
        let mut parts = self.within(&names, Self::arguments)?;
        let most = if kind == LoopKind::Map { 2 } else { 1 };
        if parts.is_empty() || parts.len() > most {
            return Err(self.unexpected());
        }
        let depth = parts.iter().map(|part| part.depth).max().unwrap_or(0).max(of.depth);
        let last = parts.pop().map(|part| part.expr);
        let (condition, result) = match kind {
            LoopKind::Map => (parts.pop().map(|part| part.expr), last),
            _ => (last, None),
        };
        let expr = Expr::Loop(Box::new(Loop { kind, range: of.expr.clone(), names, condition, result }));
        self.node(expr, depth).map(Some)
    }

    /// Whether a name and a comma come next.
    fn comma_follows(&self) -> bool {
        let comma = self.tokens.get(self.next + 1).is_some_and(|token| token.kind == Kind::Symbol(","));
        comma && matches!(self.peek(), Kind::Name(_))
    }

    fn optional_map(&mut self, of: &Parsed, flat: bool) -> Result<Parsed, Failure> {
        let name = self.name()?;
        self.expect(",")?;
        let result = self.within(std::slice::from_ref(&name), Self::expression)?;
        self.take(&[","]);
        self.expect(")")?;
        let depth = of.depth.max(result.depth);
        self.node(Expr::OptionalMap(name, Box::new([of.expr.clone(), result.expr]), flat), depth)
    }
}

/// A device has these fields only.
fn check_field(of: &Expr, name: &str, at: usize) -> Result<(), Failure> {
    let of_device = matches!(of, Expr::Name(variable) if **variable == *"device");
    if of_device && !matches!(name, "driver" | "attributes" | "capacity" | "allowMultipleAllocations") {
        return Err((at, format!("undefined field '{name}'")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_shown_where_it_is() {
        let error = |text: &str| parse(text).unwrap_err();
        assert_eq!(
            error("true &&\n  foo"),
            "compilation failed: ERROR: <input>:2:3: undeclared reference to 'foo' (in container '')\n |   foo\n | ..^"
        );
        assert!(error("device.nothing").contains("undefined field 'nothing'"));
        assert!(error("url('x')").contains("undeclared reference to 'url'"));
        assert!(error("device.driver.getHost()").contains("undeclared reference to 'getHost'"));
        assert!(error("has(device)").contains("invalid argument to has() macro"));
        for broken in
            ["", "1 +", "(1", "[1", "a.", "device[", "true ? 1", "!", "[1].all(1, true)", "9223372036854775808"]
        {
            assert!(parse(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn nesting_is_bounded_and_length_is_not_nesting() {
        for deep in ["(", "!", "-", "[", "true ? true : "] {
            assert!(parse(&deep.repeat(3000)).unwrap_err().contains("recursion limit"), "{deep}");
        }
        assert!(parse(&format!("device{}", ".a".repeat(3000))).is_err());
        assert!(parse(&format!("[1]{}", "[0]".repeat(3000))).unwrap_err().contains("recursion limit"));
        assert!(parse(&vec!["true"; 2000].join("&&")).is_ok());
        assert!(parse(&vec!["1"; 2000].join("+")).is_ok());
        assert!(parse("-9223372036854775808 < 0 && [1,].exists(x, x == 1) && {'a': 1}.all(k, v, v == 1)").is_ok());
    }
}
