//! Field selectors: `metadata.name=a,status.phase!=Running`.
//!
//! Upstream: <https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/>.

use std::str::FromStr;

use super::ParseSelectorError;

/// All of its requirements must hold. Without any it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

/// One field, and what it must or must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Such as `spec.nodeName`.
    pub field: String,
    /// The value to compare with.
    pub value: String,
    /// The value must differ.
    pub negated: bool,
}

impl FieldSelector {
    /// The requirements.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }

    /// The same requirements of fields by other names.
    ///
    /// # Errors
    /// What `rename` refuses a field with.
    pub fn renamed<E>(mut self, rename: impl Fn(&str) -> Result<String, E>) -> Result<Self, E> {
        for requirement in &mut self.requirements {
            requirement.field = rename(&requirement.field)?;
        }
        Ok(self)
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether an object matches whose fields this function gives.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<std::borrow::Cow<'a, str>>) -> bool {
        self.requirements.iter().all(|requirement| {
            let equal = field(&requirement.field).unwrap_or_default() == requirement.value;
            equal != requirement.negated
        })
    }
}

impl FromStr for FieldSelector {
    type Err = ParseSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let requirements = split(text).into_iter().map(|term| parse_term(&term)).collect::<Result<_, _>>()?;
        Ok(Self { requirements })
    }
}

/// Splits at commas that no backslash precedes; empty terms are passed over.
fn split(text: &str) -> Vec<String> {
    let mut terms = vec![String::new()];
    let mut escaped = false;
    for character in text.chars() {
        match (character, escaped, terms.last_mut()) {
            (',', false, _) => terms.push(String::new()),
            (_, _, Some(term)) => term.push(character),
            _ => {}
        }
        escaped = character == '\\' && !escaped;
    }
    terms.retain(|term| !term.is_empty());
    terms
}

fn parse_term(term: &str) -> Result<FieldRequirement, ParseSelectorError> {
    let invalid = || ParseSelectorError(format!("invalid selector: '{term}'; can't understand '{term}'"));
    let position = term.find('=').ok_or_else(invalid)?;
    let (field, rest) = term.split_at(position);
    let (field, negated) = match field.strip_suffix('!') {
        Some(field) => (field, true),
        None => (field, false),
    };
    let rest = rest.trim_start_matches("==").trim_start_matches('=');
    Ok(FieldRequirement { field: field.to_owned(), value: unescape(rest)?, negated })
}

fn unescape(text: &str) -> Result<String, ParseSelectorError> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                _ => {
                    return Err(ParseSelectorError(format!("invalid field selector: invalid escape sequence: {text}")));
                }
            },
            '=' => {
                return Err(ParseSelectorError(format!(
                    "invalid field selector: unescaped character in value: {text}"
                )));
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_split_and_unescaped() {
        let selector: FieldSelector = r"a=b,c!=d\,e,,f==g".parse().unwrap();
        let terms: Vec<_> =
            selector.requirements().iter().map(|r| (r.field.as_str(), r.value.as_str(), r.negated)).collect();
        assert_eq!(terms, [("a", "b", false), ("c", "d,e", true), ("f", "g", false)]);
        assert!("nonsense".parse::<FieldSelector>().is_err());
    }
}
