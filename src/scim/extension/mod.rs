//! Extensions under URNs that no schema here describes: kept as JSON, and changed, selected and compared by their names.
//! Nothing that access depends on is in them.

mod change;
mod compare;

use serde_json::{Map, Value};

use super::filter::AttributePath;
use super::parse;
use super::schema::ResourceType;

pub(super) use change::{ExtensionEdit, Request, without_repetitions};
pub(super) use compare::{checked, checked_inside, instant, numeric, passes, passes_element, value};

/// Longest URN of an extension, in bytes.
const MAX_URN: usize = 256;

/// Largest number of URNs in `schemas` of a request that are looked at.
const MAX_LISTED: usize = 50;

/// True for a name that may be the URN of an extension that is not described. A misspelled URN of a core schema, of a
/// message or of the enterprise extension is none: what is sent under it means something here.
#[must_use]
pub(super) fn is_extension(urn: &str) -> bool {
    if urn.len() > MAX_URN || !parse::is_urn(urn) || urn.ends_with(':') {
        return false;
    }
    let urn = urn.to_ascii_lowercase();
    let registered = urn.starts_with("urn:ietf:params:scim:");
    let extends = urn.starts_with("urn:ietf:params:scim:schemas:extension:");
    let inside = format!("{urn}:");
    let meant = [":schemas:core:", ":extension:enterprise:"].iter().any(|known| inside.contains(known));
    !meant && (extends || !registered)
}

/// The URNs of extensions in `schemas` of a request. `body`: only those that the body has a value for.
#[must_use]
pub(super) fn listed(message: &Map<String, Value>, body: bool) -> Vec<String> {
    let urns = super::json::member(message, "schemas").and_then(Value::as_array).into_iter().flatten();
    let has_value = |urn: &str| {
        message.iter().any(|(key, value)| begins_with(key.trim(), urn).is_some() && without_nulls(value).is_some())
    };
    let urns = urns.take(MAX_LISTED).filter_map(Value::as_str).filter(|urn| is_extension(urn));
    urns.filter(|urn| !body || has_value(urn)).map(str::to_owned).collect()
}

/// Removes the extensions that are empty, and returns the URNs of the others.
#[must_use]
pub(super) fn kept(resource: &mut Map<String, Value>) -> Vec<String> {
    let is_empty = |value: &Value| value.as_object().is_some_and(Map::is_empty);
    resource.retain(|name, value| !is_empty(value) || !is_extension(name));
    resource.keys().filter(|name| is_extension(name)).cloned().collect()
}

/// What stands behind a URN and a colon or dot; an empty text for the URN itself.
fn begins_with<'k>(key: &'k str, urn: &str) -> Option<&'k str> {
    let (head, tail) = (key.get(..urn.len())?, key.get(urn.len()..)?);
    if !head.eq_ignore_ascii_case(urn) {
        return None;
    }
    if tail.is_empty() { Some(tail) } else { tail.strip_prefix([':', '.']) }
}

/// A value without what means "no value" (RFC 7643 §2.5): nulls, empty lists and empty objects.
#[must_use]
pub(super) fn without_nulls(value: &Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Array(list) => {
            let list: Vec<Value> = list.iter().filter_map(without_nulls).collect();
            if list.is_empty() { None } else { Some(Value::Array(list)) }
        }
        Value::Object(object) => {
            let parts = object.iter().filter_map(|(name, value)| Some((name.clone(), without_nulls(value)?)));
            let object: Map<String, Value> = parts.collect();
            if object.is_empty() { None } else { Some(Value::Object(object)) }
        }
        other => Some(other.clone()),
    }
}

/// One way to split a path into a URN and the names behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reading {
    urn: String,
    /// None when the path is the URN.
    name: Option<String>,
    sub: Option<String>,
}

/// The ways to read a path, with the longest URN first. A URN is written like a path inside another one, so only a
/// resource, or the `schemas` of a request, say which of them is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Readings(Vec<Reading>);

impl Readings {
    /// The ways to read a path; none when it names no extension.
    #[must_use]
    pub(super) fn of(path: &AttributePath) -> Option<Self> {
        let schema = path.schema.as_ref()?;
        let text = path.to_string();
        let mut list = vec![Reading { urn: text.clone(), name: None, sub: None }];
        let behind = schema.len() + 1;
        let dots: Vec<usize> = text.get(behind..)?.match_indices('.').map(|(at, _)| behind + at).collect();
        // The URN ends before the last name, or before the last two.
        for end in dots.iter().rev().copied().chain([schema.len()]).take(2) {
            let (urn, names) = (text.get(..end)?, text.get(end + 1..)?);
            let (name, sub) = names.split_once('.').map_or((names, None), |(name, sub)| (name, Some(sub)));
            // A number beside a dot is a part of a version, which is a part of the URN.
            if is_number(name) && (end > schema.len() || sub.is_some_and(is_number)) {
                continue;
            }
            list.push(Reading { urn: urn.to_owned(), name: Some(name.to_owned()), sub: sub.map(str::to_owned) });
        }
        list.retain(|reading| is_extension(&reading.urn));
        if list.is_empty() { None } else { Some(Self(list)) }
    }

    /// The ways to read the path of a filter or of `sortBy`, which no resource decides.
    #[must_use]
    pub(super) fn of_filter(of: ResourceType, path: &AttributePath) -> Option<Self> {
        let path = of.normalized(path);
        if path.schema.as_deref().is_some_and(|urn| of.knows_schema(urn)) {
            return None;
        }
        Self::of(&path).filter(|readings| readings.0.iter().any(|reading| has_mark(&reading.urn)))
    }

    /// The names of a path in this resource; none when it does not have the extension. A `name` of none is the whole
    /// extension. Names have the spelling of the resource.
    #[must_use]
    pub(super) fn path_in(&self, resource: &Map<String, Value>) -> Option<(String, Option<String>, Option<String>)> {
        let (urn, reading) = self.among(&resource.keys().map(String::as_str))?;
        let spelled = |object: Option<&Value>, name: &str| {
            let object = match object {
                Some(Value::Array(list)) => list.first(),
                other => other,
            };
            let key = object.and_then(Value::as_object).and_then(|object| spelling(object, name));
            key.map_or_else(|| name.to_owned(), str::to_owned)
        };
        let home = resource.get(urn);
        let name = reading.name.as_ref().map(|name| spelled(home, name));
        let value = home.zip(name.as_ref()).and_then(|(home, name)| home.get(name));
        let sub = reading.sub.as_ref().map(|sub| spelled(value, sub));
        Some((urn.to_owned(), name, sub))
    }

    /// The first reading with one of these URNs, and its spelling there.
    fn among<'u>(&self, urns: &(impl Iterator<Item = &'u str> + Clone)) -> Option<(&'u str, &Reading)> {
        self.0.iter().find_map(|reading| {
            let urn = urns.clone().find(|urn| urn.eq_ignore_ascii_case(&reading.urn))?;
            Some((urn, reading))
        })
    }

    /// The reading that URNs are formed like. `object`: the value is an object, as that of an extension is.
    fn by_form(&self, of: ResourceType, object: bool) -> Option<&Reading> {
        let complete = |reading: &&Reading| match (&reading.name, object) {
            (None, false) => ends_with_type(of, &reading.urn),
            _ => is_complete(of, &reading.urn),
        };
        let marked = |reading: &&Reading| has_mark(&reading.urn);
        let rest = || if object { self.0.first() } else { self.0.last() };
        self.0.iter().find(complete).or_else(|| rest().filter(marked))
    }
}

/// The name of a member of an object in the spelling of the object.
fn spelling<'o>(object: &'o Map<String, Value>, name: &str) -> Option<&'o str> {
    if let Some((key, _)) = object.get_key_value(name) {
        return Some(key);
    }
    object.keys().find(|key| key.eq_ignore_ascii_case(name)).map(String::as_str)
}

fn is_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_version(segment: &str) -> bool {
    segment.contains('.') && segment.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// True when a URN says that it is that of a schema: by a version, or by one of the words of RFC 7643 §10.3.
fn has_mark(urn: &str) -> bool {
    let words = ["schemas", "schema", "extension", "extensions"];
    urn.split(':').any(|part| is_version(part) || words.iter().any(|word| word.eq_ignore_ascii_case(part)))
}

fn ends_with_type(of: ResourceType, urn: &str) -> bool {
    has_mark(urn) && urn.rsplit(':').next().is_some_and(|last| last.eq_ignore_ascii_case(of.name()))
}

/// True for a URN with a mark that ends like those of schemas: `…:2.0`, `…:2.0:Employee`, `…:User`.
fn is_complete(of: ResourceType, urn: &str) -> bool {
    let mut parts = urn.rsplit(':');
    let (Some(last), Some(before)) = (parts.next(), parts.next()) else { return false };
    let named = is_version(before) && last.starts_with(|first: char| first.is_ascii_uppercase()) && !last.contains('.');
    ends_with_type(of, urn) || (has_mark(urn) && (is_version(last) || named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scim::Findings;

    const ACME: &str = "urn:example:params:scim:schemas:extension:acme:2.0:User";

    fn readings(path: &str) -> Readings {
        Readings::of(&parse::patch_path(path, &mut Findings::new()).unwrap().attribute).unwrap()
    }

    #[test]
    fn urns_that_mean_something_here_are_no_unknown_extensions() {
        for urn in [ACME, "urn:okta:custom:1.0", "urn:scim:schemas:extension:acme:1.0", "URN:acme:User"] {
            assert!(is_extension(urn), "{urn}");
        }
        for urn in [
            "urn:ietf:params:scim:schemas:core:2.0:User",
            "urn:scim:schemas:core:1.0",
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User",
            "urn:ietf:params:scim:schemas:extension:enterprise:1.0",
            "urn:ietf:params:scim:schemas:User",
            "urn:ietf:params:scim:api:messages:2.0:PatchOp",
            "urn:acme:",
            "acme:User",
            "userName",
        ] {
            assert!(!is_extension(urn), "{urn}");
        }
        assert!(!is_extension(&format!("urn:{}", "a".repeat(MAX_URN))));
    }

    #[test]
    fn a_path_is_split_where_the_form_of_urns_says() {
        for (path, object, urn, name, sub) in [
            (ACME.to_owned(), true, ACME, None, None),
            (ACME.to_owned(), false, ACME, None, None),
            (format!("{ACME}:badge"), false, ACME, Some("badge"), None),
            (format!("{ACME}:badge"), true, ACME, Some("badge"), None),
            (format!("{ACME}:a.b"), false, ACME, Some("a"), Some("b")),
            (format!("{ACME}.badge"), false, ACME, Some("badge"), None),
            ("urn:okta:custom:1.0".to_owned(), true, "urn:okta:custom:1.0", None, None),
            ("urn:okta:custom:1.0:badge".to_owned(), true, "urn:okta:custom:1.0", Some("badge"), None),
            ("urn:okta:custom:1.0:Staff".to_owned(), true, "urn:okta:custom:1.0:Staff", None, None),
            ("urn:okta:custom:1.0:Staff".to_owned(), false, "urn:okta:custom:1.0", Some("Staff"), None),
            ("urn:scim:schemas:acme:User:a".to_owned(), false, "urn:scim:schemas:acme:User", Some("a"), None),
            ("urn:acme:schema:a".to_owned(), false, "urn:acme:schema", Some("a"), None),
            ("urn:acme:ext:1.2.3".to_owned(), true, "urn:acme:ext:1.2.3", None, None),
            ("urn:acme:ext:1.2.3".to_owned(), false, "urn:acme:ext:1.2.3", None, None),
            ("urn:acme:ext:1.2.3:badge".to_owned(), false, "urn:acme:ext:1.2.3", Some("badge"), None),
            ("urn:acme:ext:1.2.3.badge".to_owned(), false, "urn:acme:ext:1.2.3", Some("badge"), None),
            ("urn:acme:ext:1.2.3.a.b".to_owned(), false, "urn:acme:ext:1.2.3", Some("a"), Some("b")),
            ("urn:acme:ext:1.2.3:User:badge".to_owned(), false, "urn:acme:ext:1.2.3:User", Some("badge"), None),
            ("urn:acme:ext:1.2.3:User.a.b".to_owned(), false, "urn:acme:ext:1.2.3:User", Some("a"), Some("b")),
            (format!("{ACME}.a.b"), false, ACME, Some("a"), Some("b")),
        ] {
            let readings = readings(&path);
            let reading = readings.by_form(ResourceType::User, object).unwrap();
            assert_eq!(
                (reading.urn.as_str(), reading.name.as_deref(), reading.sub.as_deref()),
                (urn, name, sub),
                "{path}"
            );
        }
        for path in ["urn:example:nothing:User", "urn:example:User:nothing"] {
            assert_eq!(readings(path).by_form(ResourceType::User, true), None, "{path}");
        }
    }

    #[test]
    fn a_path_is_split_where_the_resource_has_the_urn() {
        let resource = serde_json::json!({"urn:x:Y": {"Badge": {"No": 1}}});
        let found = |path: &str| readings(path).path_in(resource.as_object().unwrap());
        assert_eq!(found("URN:x:y"), Some(("urn:x:Y".into(), None, None)));
        assert_eq!(found("urn:x:y:badge.NO"), Some(("urn:x:Y".into(), Some("Badge".into()), Some("No".into()))));
        assert_eq!(found("urn:x:z:badge"), None);
    }
}
