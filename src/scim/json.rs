//! Request bodies: JSON of bounded depth, whose names have no case.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::error::{ScimError, shown};
use super::finding::{FindingCode, Findings};

/// Largest request body, in bytes.
pub(crate) const MAX_BODY: usize = 4 * 1024 * 1024;
/// Deepest nesting of objects and lists.
pub(crate) const MAX_DEPTH: usize = 32;

/// Reads a body that must be one JSON object.
///
/// # Errors
/// `invalidSyntax`: not JSON, not an object, nested deeper than [`MAX_DEPTH`], or with one name for two different values
/// in an object. Names of attributes have no case (RFC 7643 §2.1), so `members` and `Members` are the same name, and it is
/// unclear which value was meant. The same value twice is taken once, with a finding.
pub(crate) fn object(body: &[u8], findings: &mut Findings) -> Result<Map<String, Value>, ScimError> {
    // A byte order mark, which some libraries put before UTF-8.
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(ScimError::InvalidSyntax("the body is empty; send a JSON object".into()));
    }
    if deeper_than(body, MAX_DEPTH) {
        return Err(ScimError::InvalidSyntax(format!("the body is nested deeper than {MAX_DEPTH} levels")));
    }
    let findings = RefCell::new(findings);
    let mut text = serde_json::Deserializer::from_slice(body);
    let read = Reader { findings: &findings }.deserialize(&mut text).and_then(|value| text.end().map(|()| value));
    findings.into_inner().refuse_deviations()?;
    match read {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ScimError::InvalidSyntax("the body is not a JSON object".into())),
        Err(problem) if problem.is_data() => Err(ScimError::InvalidSyntax(problem.to_string())),
        Err(problem) => Err(ScimError::InvalidSyntax(format!(
            "the body is not JSON: problem at line {} column {}",
            problem.line(),
            problem.column()
        ))),
    }
}

/// Reads a list or object inside a text; none when the text does not begin like one.
///
/// # Errors
/// As [`object`].
pub(super) fn embedded(text: &str, findings: &mut Findings) -> Option<Result<Value, ScimError>> {
    if !text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let whole = object(format!("{{\"value\":{text}}}").as_bytes(), findings);
    Some(whole.and_then(|mut whole| match (whole.len(), whole.remove("value")) {
        (1, Some(value)) => Ok(value),
        _ => Err(ScimError::InvalidSyntax("the text is not one JSON value".into())),
    }))
}

/// Up to this many names are compared pairwise; more are looked up in a map.
const FEW: usize = 8;

/// Reads JSON in which no object has one name, in whatever case, for two different values. Of two such members, a parser
/// keeps one and drops the other, and the sender does not learn which.
#[derive(Clone, Copy)]
struct Reader<'a, 'f> {
    findings: &'a RefCell<&'f mut Findings>,
}

impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        // The names in lower case, each with the spelling that came first.
        let mut names = HashMap::new();
        while let Some(name) = object.next_key::<String>()? {
            let value = object.next_value_seed(self)?;
            if map.len() == FEW && names.is_empty() {
                names.extend(map.keys().map(|name: &String| (name.to_ascii_lowercase(), name.clone())));
            }
            let first = if map.len() < FEW {
                map.keys().find(|there| there.eq_ignore_ascii_case(&name)).cloned()
            } else {
                names.get(&name.to_ascii_lowercase()).cloned()
            };
            match first {
                None => {
                    if map.len() >= FEW {
                        names.insert(name.to_ascii_lowercase(), name.clone());
                    }
                    map.insert(name, value);
                }
                Some(first) if map.get(&first).is_some_and(|there| alike(there, &value)) => {
                    self.findings.borrow_mut().note(FindingCode::AttributeRepeated, &name);
                }
                Some(_) => {
                    let name = shown(&name);
                    return Err(A::Error::custom(format_args!(
                        "two members of one object are called `{name}` and differ"
                    )));
                }
            }
        }
        Ok(map.into())
    }
}

/// Objects with up to this many names are compared without regard to the case of the names.
const COMPARED: usize = 64;

/// True when two values are the same, whatever the case of names in them.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) if one.len() == other.len() && one.len() <= COMPARED => {
            one.iter().all(|(name, value)| member(other, name).is_some_and(|there| alike(value, there)))
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        _ => one == other,
    }
}

/// True when brackets outside strings nest deeper than `limit`. Checked before any recursive code reads the text.
fn deeper_than(text: &[u8], limit: usize) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The member of this name, in any case.
pub(super) fn member<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    object.get(name).or_else(|| object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_of_ten_thousand_is_refused_without_recursion() {
        let mut body = b"{\"a\":".to_vec();
        body.extend(std::iter::repeat_n(b'[', 10_000));
        body.extend(std::iter::repeat_n(b']', 10_000));
        body.push(b'}');
        assert_eq!(object(&body, &mut Findings::new()).unwrap_err().scim_type(), Some("invalidSyntax"));
    }

    #[test]
    fn brackets_inside_strings_do_not_count_as_nesting() {
        let body = format!("{{\"a\":\"{}\\\"[\"}}", "[".repeat(100));
        assert!(object(body.as_bytes(), &mut Findings::new()).is_ok());
    }

    #[test]
    fn thirty_two_levels_are_read_and_thirty_three_are_not() {
        let nested = |depth: usize| format!("{{\"a\":{}1{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(object(nested(32).as_bytes(), &mut Findings::new()).is_ok());
        assert!(object(nested(33).as_bytes(), &mut Findings::new()).is_err());
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for body in ["", "  ", "[]", "1", "{", "{\"a\":}", "nul"] {
            assert_eq!(
                object(body.as_bytes(), &mut Findings::new()).unwrap_err().scim_type(),
                Some("invalidSyntax"),
                "{body}"
            );
        }
    }
}
