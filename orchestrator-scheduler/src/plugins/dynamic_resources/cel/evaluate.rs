//! Works expressions out, in as many steps as are allowed.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use super::{
    functions,
    parser::{Expr, Loop, LoopKind},
    value::{Key, Map, Value},
};

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No steps are left.
    Spent,
    /// An error that the language knows.
    Says(String),
}

pub(super) type Outcome = Result<Value, Fault>;

pub(super) fn fault<T>(message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Says(message.into()))
}

pub(super) fn no_overload<T>() -> Result<T, Fault> {
    fault("no such overload")
}

/// Patterns that were made ready.
pub(super) type Patterns = RefCell<BTreeMap<Rc<str>, Option<regex::Regex>>>;

/// One evaluation.
pub(super) struct Run<'a> {
    pub(super) device: Value,
    /// How many steps are left.
    pub(super) steps: u64,
    pub(super) patterns: &'a Patterns,
    /// What macros have given names to, the innermost last.
    pub(super) names: Vec<(Rc<str>, Value)>,
}

impl Run<'_> {
    /// Takes steps away.
    pub(super) fn spend(&mut self, steps: u64) -> Result<(), Fault> {
        self.steps = self.steps.checked_sub(steps).ok_or(Fault::Spent)?;
        Ok(())
    }

    pub(super) fn value(&mut self, expr: &Expr) -> Outcome {
        self.spend(1)?;
        match expr {
            Expr::Literal(value) => Ok(value.clone()),
            Expr::Name(name) => {
                let named = self.names.iter().rev().find(|(known, _)| known == name);
                Ok(named.map_or_else(|| self.device.clone(), |(_, value)| value.clone()))
            }
            Expr::Field(of, name, optional) => {
                let of = self.value(of)?;
                self.element(of, &Value::Text(name.clone()), *optional)
            }
            Expr::Index(of, index, optional) => {
                let (of, index) = (self.value(of)?, self.value(index)?);
                self.element(of, &index, *optional)
            }
            Expr::Has(of, name) => {
                let of = self.value(of)?;
                let found = self.element(of, &Value::Text(name.clone()), true)?;
                Ok(Value::Bool(matches!(found, Value::Optional(Some(_)))))
            }
            Expr::Not(of) => Ok(Value::Bool(!self.truth(of)?)),
            Expr::Negate(of) => match self.value(of)? {
                Value::Int(value) => value.checked_neg().map(Value::Int).ok_or_else(overflow),
                Value::Double(value) => Ok(Value::Double(-value)),
                _ => no_overload(),
            },
            Expr::Arithmetic(first, rest) => {
                let mut sum = self.value(first)?;
                for (operator, operand) in rest {
                    let operand = self.value(operand)?;
                    sum = self.arithmetic(*operator, sum, operand)?;
                }
                Ok(sum)
            }
            Expr::Relation(operator, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.relation(operator, &a, &b).map(Value::Bool)
            }
            Expr::In(item, of) => {
                let (item, of) = (self.value(item)?, self.value(of)?);
                self.contains(&of, &item).map(Value::Bool)
            }
            Expr::All(parts) => self.logic(parts, false),
            Expr::Any(parts) => self.logic(parts, true),
            Expr::Choice(parts) => {
                let [condition, then, other] = parts.as_ref();
                let chosen = if self.truth(condition)? { then } else { other };
                self.value(chosen)
            }
            Expr::List(items) => self.list(items),
            Expr::Map(entries) => self.map(entries),
            Expr::Call(name, receiver, arguments) => self.call(name, receiver.as_deref(), arguments),
            Expr::Loop(of) => self.run_loop(of),
            Expr::Bind(name, parts) => {
                let [value, result] = parts.as_ref();
                let value = self.value(value)?;
                self.with(name, value, result)
            }
            Expr::OptionalMap(name, parts, flat) => {
                let [of, result] = parts.as_ref();
                match self.value(of)? {
                    Value::Optional(None) => Ok(Value::Optional(None)),
                    Value::Optional(Some(value)) => {
                        let value = self.with(name, value.as_ref().clone(), result)?;
                        Ok(if *flat { value } else { Value::Optional(Some(Rc::new(value))) })
                    }
                    _ => no_overload(),
                }
            }
        }
    }

    /// What an expression means while a name stands for a value.
    fn with(&mut self, name: &Rc<str>, value: Value, expr: &Expr) -> Outcome {
        self.names.push((name.clone(), value));
        let result = self.value(expr);
        self.names.pop();
        result
    }

    fn truth(&mut self, expr: &Expr) -> Result<bool, Fault> {
        match self.value(expr)? {
            Value::Bool(value) => Ok(value),
            _ => no_overload(),
        }
    }

    /// `&&` or `||`: a part that decides makes errors of the others void.
    fn logic(&mut self, parts: &[Expr], deciding: bool) -> Outcome {
        let mut failed = None;
        for part in parts {
            match self.truth(part) {
                Ok(value) if value == deciding => return Ok(Value::Bool(deciding)),
                Ok(_) => {}
                Err(Fault::Spent) => return Err(Fault::Spent),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(Value::Bool(!deciding)), Err)
    }

    /// An element of a list or a map, or of what is optional.
    fn element(&mut self, of: Value, index: &Value, optional: bool) -> Outcome {
        let (of, optional, wrap) = match of {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(of)) => (of.as_ref().clone(), true, true),
            of => (of, optional, optional),
        };
        self.spend(index.weight())?;
        let found = match &of {
            Value::Map(map) => {
                let Some(key) = Key::of(index) else { return no_overload() };
                map.get(&key).ok_or_else(|| format!("no such key: {}", functions::shown(index)))
            }
            Value::List(items) => {
                let Some(at) = Key::of(index) else { return no_overload() };
                let Key::Whole(at) = at else { return no_overload() };
                let item = usize::try_from(at).ok().and_then(|at| items.get(at).cloned());
                item.ok_or_else(|| format!("index out of bounds: {at}"))
            }
            _ => return no_overload(),
        };
        match found {
            Ok(value) if wrap => Ok(Value::Optional(Some(Rc::new(value)))),
            Ok(value) => Ok(value),
            Err(_) if optional => Ok(Value::Optional(None)),
            Err(message) => fault(message),
        }
    }

    fn arithmetic(&mut self, operator: char, a: Value, b: Value) -> Outcome {
        match (&a, &b, operator) {
            (Value::Int(a), Value::Int(b), _) => {
                let result = match operator {
                    '+' => a.checked_add(*b),
                    '-' => a.checked_sub(*b),
                    '*' => a.checked_mul(*b),
                    '/' if *b == 0 => return fault("division by zero"),
                    '%' if *b == 0 => return fault("modulus by zero"),
                    '/' => a.checked_div(*b),
                    _ => a.checked_rem(*b),
                };
                result.map(Value::Int).ok_or_else(overflow)
            }
            (Value::Uint(a), Value::Uint(b), _) => {
                let result = match operator {
                    '+' => a.checked_add(*b),
                    '-' => a.checked_sub(*b),
                    '*' => a.checked_mul(*b),
                    '/' if *b == 0 => return fault("division by zero"),
                    '%' if *b == 0 => return fault("modulus by zero"),
                    '/' => a.checked_div(*b),
                    _ => a.checked_rem(*b),
                };
                result.map(Value::Uint).ok_or_else(|| Fault::Says("unsigned integer overflow".to_owned()))
            }
            (Value::Double(a), Value::Double(b), '+') => Ok(Value::Double(a + b)),
            (Value::Double(a), Value::Double(b), '-') => Ok(Value::Double(a - b)),
            (Value::Double(a), Value::Double(b), '*') => Ok(Value::Double(a * b)),
            (Value::Double(a), Value::Double(b), '/') => Ok(Value::Double(a / b)),
            (Value::Text(x), Value::Text(y), '+') => {
                self.spend(a.weight() + b.weight())?;
                Ok(Value::text(&[&**x, &**y].concat()))
            }
            (Value::Bytes(x), Value::Bytes(y), '+') => {
                self.spend(a.weight() + b.weight())?;
                Ok(Value::Bytes([&**x, &**y].concat().into()))
            }
            (Value::List(x), Value::List(y), '+') => {
                self.spend(a.weight() + b.weight())?;
                Ok(Value::list([&**x, &**y].concat()))
            }
            _ => no_overload(),
        }
    }

    fn relation(&mut self, operator: &str, a: &Value, b: &Value) -> Result<bool, Fault> {
        match operator {
            "==" => return self.equal(a, b),
            "!=" => return self.equal(a, b).map(|equal| !equal),
            _ => self.spend(a.weight().min(b.weight()))?,
        }
        let numbers = |value: &Value| matches!(value, Value::Double(_)) || value.whole().is_some();
        let Some(order) = a.compare(b) else {
            return if numbers(a) && numbers(b) { fault("NaN values cannot be ordered") } else { no_overload() };
        };
        Ok(match operator {
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            _ => order.is_ge(),
        })
    }

    /// Whether two values are equal. Lists and maps are walked through, and each step counts: they may share their parts.
    pub(super) fn equal(&mut self, a: &Value, b: &Value) -> Result<bool, Fault> {
        self.spend(1)?;
        match (a, b) {
            (Value::List(a), Value::List(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b.iter()) {
                    if !self.equal(a, b)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Map(a), Value::Map(b)) => {
                if a.entries.len() != b.entries.len() {
                    return Ok(false);
                }
                for ((key, a), (other, b)) in a.entries.iter().zip(&b.entries) {
                    if key != other || !self.equal(a, b)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Optional(Some(a)), Value::Optional(Some(b))) => self.equal(a, b),
            _ => {
                self.spend(a.weight().min(b.weight()))?;
                Ok(a == b)
            }
        }
    }

    /// Whether a list or the keys of a map have something.
    pub(super) fn contains(&mut self, of: &Value, item: &Value) -> Result<bool, Fault> {
        match of {
            Value::Map(map) => {
                self.spend(item.weight())?;
                Ok(Key::of(item).is_some_and(|key| map.entries.contains_key(&key)))
            }
            Value::List(items) => {
                for known in items.iter() {
                    if self.equal(known, item)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            _ => no_overload(),
        }
    }

    fn list(&mut self, items: &[(bool, Expr)]) -> Outcome {
        let mut list = Vec::with_capacity(items.len());
        for (optional, item) in items {
            list.extend(self.possibly(*optional, item)?);
        }
        Ok(Value::list(list))
    }

    fn map(&mut self, entries: &[(bool, Expr, Expr)]) -> Outcome {
        let mut map = Map::default();
        for (optional, key, value) in entries {
            let key = self.value(key)?;
            self.spend(key.weight())?;
            let Some(value) = self.possibly(*optional, value)? else { continue };
            let Some(found) = Key::of(&key) else { return fault(format!("unsupported key type: {}", key.kind())) };
            if map.entries.insert(found, value).is_some() {
                return fault(format!("Failed with repeated key: {}", functions::shown(&key)));
            }
        }
        Ok(Value::Map(Rc::new(map)))
    }

    /// A value, or what is in an optional one.
    fn possibly(&mut self, optional: bool, expr: &Expr) -> Result<Option<Value>, Fault> {
        match self.value(expr)? {
            value if !optional => Ok(Some(value)),
            Value::Optional(value) => Ok(value.map(|value| value.as_ref().clone())),
            _ => no_overload(),
        }
    }

    fn call(&mut self, name: &str, receiver: Option<&Expr>, arguments: &[Expr]) -> Outcome {
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for expr in receiver.into_iter().chain(arguments) {
            let value = self.value(expr)?;
            self.spend(value.weight())?;
            values.push(value);
        }
        functions::call(self, name, receiver.is_some(), &values)
    }

    fn run_loop(&mut self, of: &Loop) -> Outcome {
        let range = self.value(&of.range)?;
        let items: Vec<(Value, Value)> = match &range {
            Value::List(items) if of.names.len() == 1 => items.iter().map(|item| (item.clone(), Value::Null)).collect(),
            Value::List(items) => items.iter().enumerate().map(|(at, item)| (Value::size(at), item.clone())).collect(),
            Value::Map(map) => map.entries.iter().map(|(key, value)| (key.value(), value.clone())).collect(),
            _ => return no_overload(),
        };
        self.spend(items.len() as u64)?;
        let outside = self.names.len();
        let mut looping = Looping { of, met: 0, failed: None, list: Vec::new() };
        for (first, second) in items {
            self.names.push((of.names[0].clone(), first.clone()));
            if let Some(name) = of.names.get(1) {
                self.names.push((name.clone(), second));
            }
            let decided = looping.step(self, first);
            self.names.truncate(outside);
            if let Some(value) = decided? {
                return Ok(value);
            }
        }
        looping.end()
    }
}

fn overflow() -> Fault {
    Fault::Says("integer overflow".to_owned())
}

/// A macro on its way through a list.
struct Looping<'a> {
    of: &'a Loop,
    /// How many elements meet the condition.
    met: usize,
    failed: Option<Fault>,
    list: Vec<Value>,
}

impl Looping<'_> {
    /// Looks at an element; `Some` if that decides.
    fn step(&mut self, run: &mut Run<'_>, item: Value) -> Result<Option<Value>, Fault> {
        let met = match &self.of.condition {
            None => true,
            Some(condition) => match run.truth(condition) {
                Ok(met) => met,
                // Others may decide.
                Err(Fault::Says(error)) if matches!(self.of.kind, LoopKind::All | LoopKind::Exists) => {
                    self.failed.get_or_insert(Fault::Says(error));
                    return Ok(None);
                }
                Err(error) => return Err(error),
            },
        };
        match self.of.kind {
            LoopKind::All if !met => return Ok(Some(Value::Bool(false))),
            LoopKind::Exists if met => return Ok(Some(Value::Bool(true))),
            LoopKind::Map if met => {
                let result = self.of.result.as_ref().map_or(Ok(item), |result| run.value(result))?;
                self.list.push(result);
            }
            LoopKind::Filter if met => self.list.push(item),
            _ => {}
        }
        self.met += usize::from(met);
        Ok(None)
    }

    fn end(self) -> Outcome {
        match (self.of.kind, self.failed) {
            (_, Some(error)) => Err(error),
            (LoopKind::All, None) => Ok(Value::Bool(true)),
            (LoopKind::Exists, None) => Ok(Value::Bool(false)),
            (LoopKind::ExistsOne, None) => Ok(Value::Bool(self.met == 1)),
            (LoopKind::Map | LoopKind::Filter, None) => Ok(Value::list(self.list)),
        }
    }
}
