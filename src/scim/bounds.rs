//! Size limits of a resource: a length for each attribute, and a size for the whole without its members.
//!
//! A change is refused only for what it makes longer, never for what was stored before there were limits, so that an
//! old record can always be deactivated.

use std::io;

use serde_json::{Map, Value};

use super::error::{ScimError, shown};
use super::extension::is_extension;
use super::json::MAX_DEPTH;
use super::normalize::MAX_ELEMENTS;
use super::schema::{ENTERPRISE_URN, Home, ResourceType};
use super::text::is_blank;

/// Largest resource in bytes, as JSON without its members and without attributes added by the server.
pub(crate) const MAX_RESOURCE: usize = 64 * 1024;

/// Number of bytes by which a record from before the limits may grow while it is deactivated.
const SLACK: usize = 4 * 1024;

/// Longest name in an extension that no schema describes, in bytes.
const MAX_NAME: usize = 256;

/// Limit of an attribute without an entry of its own.
const DEFAULT: usize = 1024;

/// Largest lengths in bytes of UTF-8: attribute, sub-attribute (`*` for each), length.
pub(crate) const LENGTHS: &[(&str, &str, usize)] = &[
    ("userName", "", 256),
    ("externalId", "", 512),
    ("displayName", "", 512),
    ("nickName", "", 256),
    ("profileUrl", "", 2048),
    ("title", "", 512),
    ("userType", "", 256),
    ("preferredLanguage", "", 64),
    ("locale", "", 64),
    ("timezone", "", 64),
    ("name", "formatted", 1024),
    ("name", "*", 512),
    ("emails", "value", 320),
    ("phoneNumbers", "value", 256),
    ("ims", "value", 256),
    ("photos", "value", 8192),
    ("addresses", "formatted", 2048),
    ("addresses", "*", 512),
    ("x509Certificates", "value", 16384),
    ("*", "type", 128),
    ("*", "display", 512),
    ("employeeNumber", "", 256),
    ("costCenter", "", 256),
    ("organization", "", 512),
    ("division", "", 512),
    ("department", "", 512),
    ("manager", "value", 512),
    ("*", "*", DEFAULT),
];

/// The largest length of an attribute, or of one of its sub-attributes.
#[must_use]
pub(crate) fn max_length(attribute: &str, sub: Option<&str>) -> usize {
    let sub = sub.unwrap_or_default();
    let fits = |pattern: &str, name: &str| pattern == "*" || pattern == name;
    LENGTHS.iter().find(|(of, part, _)| fits(of, attribute) && fits(part, sub)).map_or(DEFAULT, |(.., length)| *length)
}

/// Checks a resource that is to replace `before`.
///
/// # Errors
/// `invalidValue`: a value that is too long, with its attribute, a resource that is too large, or a blank `userName`.
pub(crate) fn check(of: ResourceType, before: Option<&Value>, after: &Value) -> Result<(), ScimError> {
    let empty = Map::new();
    let Some(after) = after.as_object() else { return Ok(()) };
    let before = before.and_then(Value::as_object);
    lengths(None, before.unwrap_or(&empty), after)?;
    let name = |resource: Option<&Map<String, Value>>| {
        resource.and_then(|all| all.get("userName")?.as_str().map(str::to_owned))
    };
    if let Some(given) = name(Some(after)).filter(|given| of.home() == Home::Users && is_blank(given))
        && name(before).as_ref() != Some(&given)
    {
        return Err(ScimError::InvalidValue("`userName` has no visible character".into()));
    }
    let allowed = match before {
        None => MAX_RESOURCE,
        Some(before) => {
            let was = size(before);
            let deactivates = is_active(before) && !is_active(after);
            let grace = if was > MAX_RESOURCE && deactivates { SLACK } else { 0 };
            MAX_RESOURCE.max(was.saturating_add(grace))
        }
    };
    let is = size(after);
    if is > allowed {
        return Err(ScimError::InvalidValue(format!(
            "the {} would be {is} bytes long; at most {MAX_RESOURCE} are stored of one, its members aside",
            of.name().to_ascii_lowercase()
        )));
    }
    Ok(())
}

/// Whether a user is active, as far as the resource says.
pub(super) fn is_active(resource: &Map<String, Value>) -> bool {
    resource.get("active").and_then(Value::as_bool).unwrap_or(true)
}

fn lengths(urn: Option<&str>, before: &Map<String, Value>, after: &Map<String, Value>) -> Result<(), ScimError> {
    let empty = Map::new();
    for (name, value) in after {
        let was = before.get(name);
        match value {
            Value::Object(extension) if urn.is_none() && name == ENTERPRISE_URN => {
                lengths(Some(name), was.and_then(Value::as_object).unwrap_or(&empty), extension)?;
            }
            value if urn.is_none() && is_extension(name) => extension(name, was, value)?,
            Value::String(text) => length(urn, name, None, text, || was == Some(value))?,
            Value::Object(object) => element(urn, name, object, |sub, value| {
                was.and_then(|was| was.get(sub)).is_some_and(|was| was == value)
            })?,
            Value::Array(elements) => {
                for object in elements.iter().filter_map(Value::as_object) {
                    element(urn, name, object, |sub, value| {
                        let there = was.and_then(Value::as_array).into_iter().flatten();
                        there.filter_map(|was| was.get(sub)).any(|was| was == value)
                    })?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks an extension that no schema describes, if it is another than before.
fn extension(urn: &str, before: Option<&Value>, value: &Value) -> Result<(), ScimError> {
    if before == Some(value) { Ok(()) } else { unknown(urn, value, 2) }
}

/// Checks a value in an extension that no schema describes. `depth`: the level of the value in the resource.
fn unknown(urn: &str, value: &Value, depth: usize) -> Result<(), ScimError> {
    let refuse = |what: String| Err(ScimError::InvalidValue(format!("`{}` {what}", shown(urn))));
    let entries = match value {
        Value::String(text) if text.len() > DEFAULT => {
            return refuse(format!("has a text of {} bytes; at most {DEFAULT} are stored", text.len()));
        }
        Value::Object(object) => object.len(),
        Value::Array(list) => list.len(),
        _ => return Ok(()),
    };
    if depth > MAX_DEPTH {
        return refuse(format!("is nested so deep that the resource has more than {MAX_DEPTH} levels"));
    }
    if entries > MAX_ELEMENTS {
        return refuse(format!("has an object or list with more than {MAX_ELEMENTS} entries"));
    }
    match value {
        Value::Object(object) => {
            if let Some(name) = object.keys().find(|name| name.len() > MAX_NAME) {
                return refuse(format!("has a name of {} bytes; at most {MAX_NAME} are stored", name.len()));
            }
            object.values().try_for_each(|value| unknown(urn, value, depth + 1))
        }
        Value::Array(list) => list.iter().try_for_each(|value| unknown(urn, value, depth + 1)),
        _ => Ok(()),
    }
}

fn element(
    urn: Option<&str>,
    name: &str,
    object: &Map<String, Value>,
    was_there: impl Fn(&str, &Value) -> bool,
) -> Result<(), ScimError> {
    for (sub, value) in object {
        if let Value::String(text) = value {
            length(urn, name, Some(sub), text, || was_there(sub, value))?;
        }
    }
    Ok(())
}

fn length(
    urn: Option<&str>,
    name: &str,
    sub: Option<&str>,
    text: &str,
    was_there: impl FnOnce() -> bool,
) -> Result<(), ScimError> {
    let allowed = max_length(name, sub);
    if text.len() <= allowed || was_there() {
        return Ok(());
    }
    let urn = urn.map(|urn| format!("{urn}:")).unwrap_or_default();
    let sub = sub.map(|sub| format!(".{sub}")).unwrap_or_default();
    Err(ScimError::InvalidValue(format!(
        "`{urn}{name}{sub}` is {} bytes long; at most {allowed} are stored",
        text.len()
    )))
}

/// The size as JSON. `active` does not count, so that a change of it alone is not growth.
fn size(resource: &Map<String, Value>) -> usize {
    let parts = resource.iter().filter(|(name, _)| *name != "active");
    // The quotes, colon and comma of each.
    parts.map(|(name, value)| json_length(value).saturating_add(name.len()).saturating_add(4)).sum::<usize>() + 2
}

/// The length of a value as JSON.
pub(super) fn json_length(value: &Value) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.saturating_add(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, value) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX,
    }
}

/// The reference page with the largest length of each attribute, as Markdown.
#[cfg(test)]
#[must_use]
pub(crate) fn reference() -> String {
    let mut page = format!(
        "# Bounds of users and groups\n\nA value that is longer is refused with 400 `invalidValue`, and so is a resource of \
         more than {MAX_RESOURCE} bytes as JSON, its members aside. Lengths are in bytes of UTF-8. What is stored from before \
         there were bounds may stay as it is, and can be deactivated and deleted. In an extension that no schema describes, a \
         name has at most {MAX_NAME} bytes, a text {DEFAULT}, and a list or object {MAX_ELEMENTS} entries.\n\n\
         | attribute | longest value |\n|---|---|\n"
    );
    for (attribute, sub, length) in LENGTHS {
        let name = match (*attribute, *sub) {
            ("*", "*") => "every other".to_owned(),
            ("*", sub) => format!("`{sub}` of others"),
            (attribute, "") => format!("`{attribute}`"),
            (attribute, "*") => format!("other parts of `{attribute}`"),
            (attribute, sub) => format!("`{attribute}.{sub}`"),
        };
        page.extend(["| ", &name, " | ", &length.to_string(), " |\n"]);
    }
    page
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_reference_page_in_docs_is_what_is_checked() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/bounds.md");
        let page = reference();
        if std::env::vars().any(|(key, value)| key == "UPDATE_GOLDEN" && value == "1") {
            std::fs::write(&path, &page).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(stored == page, "docs/reference/bounds.md is stale: run UPDATE_GOLDEN=1 cargo test --lib scim::bounds");
    }

    fn refusal(before: Option<&Value>, after: &Value) -> String {
        match check(ResourceType::User, before, after) {
            Err(ScimError::InvalidValue(text)) => text,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn accepted(before: Option<&Value>, after: &Value) {
        assert_eq!(check(ResourceType::User, before, after), Ok(()));
    }

    #[test]
    fn each_attribute_has_a_length_and_the_refusal_names_it_without_the_value() {
        let long = |length: usize| "x".repeat(length);
        for (resource, name) in [
            (json!({"userName": long(257)}), "`userName`"),
            (json!({"userName": "a", "externalId": long(513)}), "`externalId`"),
            (json!({"userName": "a", "name": {"givenName": long(513)}}), "`name.givenName`"),
            (json!({"userName": "a", "emails": [{"value": "b"}, {"value": long(321)}]}), "`emails.value`"),
            (json!({"userName": "a", "roles": [{"value": "b", "type": long(129)}]}), "`roles.type`"),
            (json!({"userName": "a", ENTERPRISE_URN: {"department": long(513)}}), ":department`"),
            (json!({"userName": "a", ENTERPRISE_URN: {"manager": {"value": long(513)}}}), ":manager.value`"),
        ] {
            let text = refusal(None, &resource);
            assert!(text.contains(name) && !text.contains("xxx"), "{text}");
        }
        accepted(None, &json!({"userName": long(256), "name": {"formatted": long(1024)}, "active": true}));
    }

    #[test]
    fn length_is_counted_in_bytes() {
        assert!(refusal(None, &json!({"userName": "ä".repeat(129)})).contains("258"));
    }

    fn photos(count: usize) -> Value {
        (0..count).map(|n| json!({"value": format!("{n}{}", "x".repeat(8000))})).collect()
    }

    #[test]
    fn a_resource_of_more_than_64_kilobytes_is_refused() {
        accepted(None, &json!({"userName": "a", "photos": photos(8)}));
        assert!(refusal(None, &json!({"userName": "a", "photos": photos(9)})).contains("65536"));
    }

    #[test]
    fn what_is_stored_may_stay_and_be_deactivated_but_not_grow() {
        let name = "x".repeat(4_000_000);
        let old = json!({"userName": name, "active": true, "emails": [{"value": "y".repeat(5000)}]});
        let gone = json!({"userName": name, "active": false, "emails": [{"value": "y".repeat(5000)}]});
        accepted(Some(&old), &gone);
        accepted(Some(&gone), &old);
        let mut renamed = gone.clone();
        renamed["displayName"] = json!("Gone");
        accepted(Some(&old), &renamed);
        refusal(Some(&gone), &renamed);
        renamed["userName"] = json!("x".repeat(257));
        assert!(refusal(Some(&old), &renamed).contains("userName"));
        renamed["userName"] = json!("short");
        accepted(Some(&old), &renamed);
    }

    #[test]
    fn a_deactivation_is_no_way_to_grow_beyond_the_bound() {
        let active = json!({"userName": "a", "active": true, "photos": photos(8)});
        refusal(Some(&active), &json!({"userName": "a", "active": false, "photos": photos(9)}));
    }
}
