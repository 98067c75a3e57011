//! Label selectors: `app=web,tier in (a,b),!old`, and the structured form of objects.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>.

use std::{collections::BTreeMap, collections::BTreeSet, fmt, str::FromStr};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as MetaLabelSelector;

use super::ParseSelectorError;

/// All of its requirements must hold. Without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<LabelRequirement>,
}

/// One label, and what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelRequirement {
    /// The label's name.
    pub key: String,
    /// How to compare.
    pub operator: Operator,
    /// What to compare with.
    pub values: BTreeSet<String>,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label exists and its value is one of the values.
    In,
    /// The label does not exist, or its value is none of the values.
    NotIn,
    /// The label exists.
    Exists,
    /// The label does not exist.
    DoesNotExist,
    /// The label is an integer above the value.
    GreaterThan,
    /// The label is an integer below the value.
    LessThan,
}

impl LabelRequirement {
    /// Whether labels fulfil it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let compare = |holds: fn(i64, i64) -> bool| {
            let bound = self.values.first().and_then(|bound| bound.parse().ok());
            value.and_then(|value| value.parse().ok()).zip(bound).is_some_and(|(value, bound)| holds(value, bound))
        };
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => compare(|value, bound| value > bound),
            Operator::LessThan => compare(|value, bound| value < bound),
        }
    }
}

impl LabelSelector {
    /// A selector of these requirements.
    pub fn new(requirements: Vec<LabelRequirement>) -> Self {
        Self { requirements }
    }

    /// A selector that asks for exactly these values.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirement = |(key, value): (&String, &String)| LabelRequirement {
            key: key.clone(),
            operator: Operator::In,
            values: BTreeSet::from([value.clone()]),
        };
        Self { requirements: labels.into_iter().map(requirement).collect() }
    }

    /// Parses the text form.
    pub fn parse(text: &str) -> Result<Self, ParseSelectorError> {
        Parser::new(text).selector()
    }

    /// The structured form that objects carry. An empty one selects everything.
    pub fn from_meta(selector: &MetaLabelSelector) -> Result<Self, ParseSelectorError> {
        let mut requirements = Self::from_labels(selector.match_labels.iter().flatten()).requirements;
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(ParseSelectorError(format!("\"{other}\" is not a valid label selector operator"))),
            };
            let values = expression.values.iter().flatten().cloned().collect();
            requirements.push(LabelRequirement { key: expression.key.clone(), operator, values });
        }
        Ok(Self { requirements })
    }

    /// The requirements.
    pub fn requirements(&self) -> &[LabelRequirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether labels fulfil all requirements.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl FromStr for LabelSelector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let key = &requirement.key;
            let values = requirement.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            match requirement.operator {
                Operator::In if requirement.values.len() == 1 => write!(f, "{key}={values}")?,
                Operator::In => write!(f, "{key} in ({values})")?,
                Operator::NotIn if requirement.values.len() == 1 => write!(f, "{key}!={values}")?,
                Operator::NotIn => write!(f, "{key} notin ({values})")?,
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan => write!(f, "{key}>{values}")?,
                Operator::LessThan => write!(f, "{key}<{values}")?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Sign(&'static str),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(word) => word,
            Self::Sign(sign) => sign,
            Self::End => "",
        }
    }
}

/// A parser of the text form. Errors are in upstream's words.
struct Parser {
    tokens: Vec<Token>,
    position: usize,
}

const SIGNS: [&str; 9] = ["!=", "==", "=", "!", "(", ")", ",", ">", "<"];

impl Parser {
    fn new(text: &str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        while !rest.is_empty() {
            if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
                tokens.push(Token::Sign(sign));
                rest = rest[sign.len()..].trim_start();
                continue;
            }
            let special = |character: char| character.is_whitespace() || "=!(),><".contains(character);
            let end = rest.find(special).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = rest[end..].trim_start();
        }
        Self { tokens, position: 0 }
    }

    fn peek(&self) -> Token {
        self.tokens.get(self.position).cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn selector(mut self) -> Result<LabelSelector, ParseSelectorError> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Sign("!") => {
                    let requirement = self.requirement().map_err(|ParseSelectorError(why)| {
                        ParseSelectorError(format!("unable to parse requirement: {why}"))
                    })?;
                    requirements.push(requirement);
                    match self.next() {
                        Token::End => return Ok(LabelSelector { requirements }),
                        Token::Sign(",") => match self.peek() {
                            Token::Word(_) | Token::Sign("!") => {}
                            other => return Err(found(&other, "identifier after ','")),
                        },
                        other => return Err(found(&other, "',' or 'end of string'")),
                    }
                }
                Token::End => return Ok(LabelSelector { requirements }),
                other => return Err(found(&other, "!, identifier, or 'end of string'")),
            }
        }
    }

    fn requirement(&mut self) -> Result<LabelRequirement, ParseSelectorError> {
        let negated = self.peek() == Token::Sign("!");
        if negated {
            self.next();
        }
        let Token::Word(key) = self.next() else {
            self.position -= 1;
            return Err(found(&self.peek(), "identifier"));
        };
        let make = |operator, values| Ok(LabelRequirement { key: key.clone(), operator, values });
        if negated {
            return make(Operator::DoesNotExist, BTreeSet::new());
        }
        match self.peek() {
            Token::End | Token::Sign(",") => make(Operator::Exists, BTreeSet::new()),
            Token::Sign("=" | "==") => {
                self.next();
                make(Operator::In, BTreeSet::from([self.exact_value()?]))
            }
            Token::Sign("!=") => {
                self.next();
                make(Operator::NotIn, BTreeSet::from([self.exact_value()?]))
            }
            Token::Sign(sign @ (">" | "<")) => {
                self.next();
                let value = self.exact_value()?;
                if value.parse::<i64>().is_err() {
                    return Err(ParseSelectorError(
                        "for 'Gt', 'Lt' operators, the value must be an integer".to_owned(),
                    ));
                }
                let operator = if sign == ">" { Operator::GreaterThan } else { Operator::LessThan };
                make(operator, BTreeSet::from([value]))
            }
            Token::Word(word) if word == "in" || word == "notin" => {
                self.next();
                let operator = if word == "in" { Operator::In } else { Operator::NotIn };
                make(operator, self.values()?)
            }
            other => Err(found(&other, "in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn exact_value(&mut self) -> Result<String, ParseSelectorError> {
        match self.peek() {
            Token::End | Token::Sign(",") => Ok(String::new()),
            Token::Word(word) => {
                self.next();
                Ok(word)
            }
            other => Err(found(&other, "identifier")),
        }
    }

    fn values(&mut self) -> Result<BTreeSet<String>, ParseSelectorError> {
        let open = self.next();
        if open != Token::Sign("(") {
            return Err(found(&open, "'('"));
        }
        let mut values = BTreeSet::new();
        loop {
            match self.next() {
                Token::Word(word) => {
                    values.insert(word);
                    match self.next() {
                        Token::Sign(",") => {}
                        Token::Sign(")") => return Ok(values),
                        other => return Err(found(&other, "',' or ')'")),
                    }
                }
                Token::Sign(",") => {
                    values.insert(String::new());
                }
                Token::Sign(")") => {
                    values.insert(String::new());
                    return Ok(values);
                }
                other => return Err(found(&other, "',', ')' or identifier")),
            }
        }
    }
}

fn found(token: &Token, expected: &str) -> ParseSelectorError {
    ParseSelectorError(format!("found '{}', expected: {expected}", token.text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn every_operator_matches_as_documented() {
        let web = labels(&[("app", "web"), ("n", "5")]);
        for (text, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("app=web", true),
            ("app==db", false),
            ("app!=db", true),
            ("other!=db", true),
            ("app in (web, db)", true),
            ("app notin (web)", false),
            ("other notin (web)", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app=web,!old", true),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&web), expected, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["=a", "a=b c", "a in", "a in (b", "a,,b", "a=b,", "n>x", "(", "!"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_text_form_round_trips() {
        for text in ["a=b", "a in (b,c)", "a!=b", "a notin (b,c)", "a", "!a", "a>1", "a<1", "a=b,c"] {
            assert_eq!(LabelSelector::parse(text).unwrap().to_string(), text);
        }
    }
}
