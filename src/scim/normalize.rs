//! Converts values as identity providers send them into their stored form.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::{Map, Value};

use super::error::ScimError;
use super::filter::time;
use super::finding::{FindingCode, Findings};
use super::schema::{Attribute, Kind, Mutability};
use super::work::{Work, steps};

/// Largest number of elements of one multi-valued attribute of a user.
pub(super) const MAX_ELEMENTS: usize = 500;

/// Context of reading the values of one request.
pub(super) struct Intake<'a> {
    pub(super) findings: &'a mut Findings,
    pub(super) work: &'a mut Work,
    /// In a PATCH, a value that is not understood is refused. In a POST or PUT it is skipped, like an attribute that is
    /// not stored.
    pub(super) patch: bool,
}

impl Intake<'_> {
    /// The value of a whole attribute. None means "no value": null, an empty string, an empty list, an empty object. In
    /// the object of a single-valued complex attribute, null unsets a sub-attribute.
    ///
    /// # Errors
    /// `invalidValue` for the wrong type, with the attribute path.
    pub(super) fn attribute(
        &mut self,
        attribute: &Attribute,
        value: Value,
        pointer: &str,
    ) -> Result<Option<Value>, ScimError> {
        match (attribute.multi, attribute.kind) {
            (true, _) => self.list(attribute, value, pointer),
            (false, Kind::Complex) => match value {
                Value::Array(mut elements) if elements.len() <= 1 => {
                    self.findings.note(FindingCode::ListNotExpected, pointer);
                    let only = elements.pop().unwrap_or(Value::Null);
                    self.object(attribute, only, true, pointer)
                }
                other => self.object(attribute, other, true, pointer),
            },
            (false, _) => self.simple(attribute, value, pointer),
        }
    }

    /// One element of a multi-valued attribute, or a partial element to merge into one.
    pub(super) fn element(
        &mut self,
        attribute: &Attribute,
        value: Value,
        pointer: &str,
    ) -> Result<Option<Value>, ScimError> {
        match value {
            Value::Array(mut elements) if elements.len() == 1 => {
                self.findings.note(FindingCode::ListNotExpected, pointer);
                self.object(attribute, elements.remove(0), false, pointer)
            }
            other => self.object(attribute, other, false, pointer),
        }
    }

    fn list(&mut self, attribute: &Attribute, value: Value, pointer: &str) -> Result<Option<Value>, ScimError> {
        let given = match value {
            Value::Null => return Ok(None),
            Value::String(text) if text.is_empty() => return Ok(None),
            Value::Array(elements) => elements,
            one if attribute.kind != Kind::Complex || one.is_object() || one.is_string() => {
                self.findings.note(FindingCode::ListExpected, pointer);
                vec![one]
            }
            _ => return Err(ScimError::InvalidValue(format!("`{pointer}` must be a list"))),
        };
        if given.len() > MAX_ELEMENTS {
            return Err(ScimError::InvalidValue(format!("`{pointer}` has more than {MAX_ELEMENTS} entries")));
        }
        let mut elements: Vec<Value> = Vec::with_capacity(given.len());
        let mut places = HashMap::new();
        for value in given {
            if attribute.kind != Kind::Complex {
                let Some(value) = self.simple(attribute, value, pointer)? else { continue };
                self.work.spend(steps(size(&value)).saturating_add(elements.len()))?;
                if !elements.contains(&value) {
                    elements.push(value);
                }
                continue;
            }
            let Some(element) = self.object(attribute, value, false, pointer)? else { continue };
            self.work.spend(steps(size(&element)))?;
            // Most elements have a value, by which an equal one is found without comparing all of them.
            let Some(key) = key(&element) else {
                merge_or_push(&mut elements, element, self.work)?;
                continue;
            };
            match places.entry(key) {
                Entry::Occupied(place) => merge(&mut elements, *place.get(), element),
                Entry::Vacant(place) => {
                    place.insert(elements.len());
                    elements.push(element);
                }
            }
        }
        if keep_first_primary(&mut elements) {
            self.findings.note(FindingCode::SeveralPrimaries, pointer);
        }
        Ok(if elements.is_empty() { None } else { Some(Value::Array(elements)) })
    }

    fn object(
        &mut self,
        attribute: &Attribute,
        value: Value,
        keep_nulls: bool,
        pointer: &str,
    ) -> Result<Option<Value>, ScimError> {
        let given = match value {
            Value::Null => return Ok(None),
            Value::String(text) if text.is_empty() => return Ok(None),
            Value::Object(given) => given,
            Value::String(text) if attribute.default_sub().is_some() => {
                self.findings.note(FindingCode::ObjectExpected, pointer);
                Map::from_iter([("value".to_owned(), Value::String(text))])
            }
            _ => return Err(ScimError::InvalidValue(format!("`{pointer}` must be an object"))),
        };
        let mut map = Map::new();
        let mut understood = given.is_empty();
        let mut read_only = None;
        for (key, value) in given {
            self.work.spend(1)?;
            let Some(sub) = attribute.sub(&key) else {
                // References to this or another server are derived from `value`, so dropping them loses nothing.
                if !key.eq_ignore_ascii_case("$ref") && !value.is_null() {
                    self.findings.note(FindingCode::AttributeNotStored, &format!("{pointer}.{key}"));
                }
                continue;
            };
            if sub.mutability == Mutability::ReadOnly {
                read_only = Some(sub.name);
                continue;
            }
            understood = true;
            match self.simple(sub, value, &format!("{pointer}.{}", sub.name))? {
                Some(value) => drop(map.insert(sub.name.to_owned(), value)),
                None if keep_nulls => drop(map.insert(sub.name.to_owned(), Value::Null)),
                None => {}
            }
        }
        if self.patch && !understood {
            if let Some(name) = read_only {
                return Err(ScimError::Mutability(format!("`{pointer}.{name}` is read-only")));
            }
            return Err(ScimError::InvalidValue(format!(
                "the value of `{pointer}` has none of its sub-attributes; `/Schemas` lists them"
            )));
        }
        Ok(if map.is_empty() { None } else { Some(Value::Object(map)) })
    }

    /// The value of `{"value": x}` and `{"$ref": null, "value": x}`, which some libraries send for a simple attribute.
    fn unwrapped(&mut self, object: Map<String, Value>, pointer: &str) -> Result<Value, ScimError> {
        let mut wrapped = None;
        for (name, value) in object {
            match value {
                value if name.eq_ignore_ascii_case("value") && !value.is_object() && !value.is_array() => {
                    wrapped = Some(value);
                }
                Value::Null => {}
                _ => return Err(ScimError::InvalidValue(format!("`{pointer}` must be a single value, not an object"))),
            }
        }
        let missing = || ScimError::InvalidValue(format!("`{pointer}` must be a single value, not an object"));
        self.findings.note(FindingCode::ValueWrapped, pointer);
        wrapped.ok_or_else(missing)
    }

    /// A value that is neither a list nor an object.
    pub(super) fn simple(
        &mut self,
        attribute: &Attribute,
        value: Value,
        pointer: &str,
    ) -> Result<Option<Value>, ScimError> {
        let value = match value {
            Value::Array(mut elements) if elements.len() == 1 => {
                self.findings.note(FindingCode::ListNotExpected, pointer);
                elements.remove(0)
            }
            other => other,
        };
        let value = match value {
            Value::Object(object) if attribute.kind != Kind::Complex => self.unwrapped(object, pointer)?,
            other => other,
        };
        match (attribute.kind, value) {
            (_, Value::Null) => Ok(None),
            (Kind::Boolean, Value::Bool(value)) => Ok(Some(Value::Bool(value))),
            // An empty string is neither true nor false. It also does not mean "no value", because access may depend on
            // the attribute.
            (Kind::Boolean, Value::String(text)) => {
                let value = if text.eq_ignore_ascii_case("true") {
                    true
                } else if text.eq_ignore_ascii_case("false") {
                    false
                } else {
                    return Err(ScimError::InvalidValue(format!("`{pointer}` must be true or false")));
                };
                self.findings.note(FindingCode::BooleanAsString, pointer);
                Ok(Some(Value::Bool(value)))
            }
            (Kind::Boolean, _) => Err(ScimError::InvalidValue(format!("`{pointer}` must be true or false"))),
            (_, Value::String(text)) if text.is_empty() => Ok(None),
            (Kind::Complex, _) => Err(ScimError::InvalidValue(format!("`{pointer}` must be an object"))),
            (Kind::String, Value::Number(number)) => {
                self.findings.note(FindingCode::NumberAsText, pointer);
                Ok(Some(Value::String(number.to_string())))
            }
            (Kind::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => {
                Ok(Some(Value::Number(number)))
            }
            (Kind::Integer, _) => Err(ScimError::InvalidValue(format!("`{pointer}` must be a whole number"))),
            (Kind::Decimal, Value::Number(number)) => Ok(Some(Value::Number(number))),
            (Kind::Decimal, _) => Err(ScimError::InvalidValue(format!("`{pointer}` must be a number"))),
            (Kind::DateTime, Value::String(text)) if time(&text).is_none() => {
                Err(ScimError::InvalidValue(format!("`{pointer}` must be a time such as \"2026-01-31T12:00:00Z\"")))
            }
            (Kind::Binary, Value::String(text)) if !is_base64(&text) => {
                Err(ScimError::InvalidValue(format!("`{pointer}` must be base64")))
            }
            (_, Value::String(text)) => {
                if attribute.required && text.trim().is_empty() {
                    return Err(ScimError::InvalidValue(format!("`{pointer}` must not be blank")));
                }
                Ok(Some(Value::String(text)))
            }
            _ => Err(ScimError::InvalidValue(format!("`{pointer}` must be a string"))),
        }
    }
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    // Encoders break long values into lines.
    let joined: String = text.split_ascii_whitespace().collect();
    base64::prelude::BASE64_STANDARD.decode(joined).is_ok()
}

/// True when two elements are the same: the same `type` and, if they have one, the same `value`.
fn same_element(one: &Value, other: &Value) -> bool {
    match (one.get("value"), other.get("value")) {
        (None, None) => one == other,
        (value, wanted) => value == wanted && one.get("type") == other.get("type"),
    }
}

/// The parts that [`same_element`] compares when an element has a value.
fn key(element: &Value) -> Option<(String, Option<String>)> {
    let text = |name: &str| element.get(name).and_then(Value::as_str).map(str::to_owned);
    Some((text("value")?, text("type")))
}

/// Completes the element at `at` with another that is the same.
fn merge(elements: &mut [Value], at: usize, element: Value) {
    if let (Some(Value::Object(there)), Value::Object(new)) = (elements.get_mut(at), element) {
        there.extend(new);
    }
}

/// Number of bytes to read for comparing two elements.
fn compared(one: &Value, other: &Value) -> usize {
    match (one.get("value").and_then(Value::as_str), other.get("value").and_then(Value::as_str)) {
        (Some(one), Some(other)) if one.len() == other.len() => one.len(),
        (None, None) => size(other),
        _ => 0,
    }
}

/// Number of bytes of text in an element.
pub(super) fn size(element: &Value) -> usize {
    match element {
        Value::Object(map) => map.values().filter_map(Value::as_str).map(str::len).sum(),
        Value::String(text) => text.len(),
        _ => 0,
    }
}

/// Adds an element, or completes an equal one. Returns its index.
pub(super) fn merge_or_push(elements: &mut Vec<Value>, element: Value, work: &mut Work) -> Result<usize, ScimError> {
    let mut at = None;
    for (index, there) in elements.iter().enumerate() {
        work.spend(steps(compared(there, &element)))?;
        if same_element(there, &element) {
            at = Some(index);
            break;
        }
    }
    if let Some(at) = at {
        merge(elements, at, element);
        Ok(at)
    } else {
        elements.push(element);
        Ok(elements.len() - 1)
    }
}

fn is_primary(element: &Value) -> bool {
    element.get("primary").and_then(Value::as_bool).unwrap_or(false)
}

/// Keeps `primary: true` only on the first element that has it. Returns whether another had it too.
pub(super) fn keep_first_primary(elements: &mut [Value]) -> bool {
    let first = elements.iter().position(is_primary);
    first.is_some_and(|first| clear_other_primaries(elements, first))
}

/// Sets `primary` to false everywhere but at `keep`. Returns whether another had it.
pub(super) fn clear_other_primaries(elements: &mut [Value], keep: usize) -> bool {
    let mut cleared = false;
    for (index, element) in elements.iter_mut().enumerate() {
        if index != keep
            && is_primary(element)
            && let Value::Object(map) = element
        {
            map.insert("primary".to_owned(), Value::Bool(false));
            cleared = true;
        }
    }
    cleared
}

/// True when `elements[index]` is marked primary.
pub(super) fn primary_at(elements: &[Value], index: usize) -> bool {
    elements.get(index).is_some_and(is_primary)
}
