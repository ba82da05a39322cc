//! What schemas ask of a resource as a whole: that it has what is required, and keeps what can be set only once.

use serde_json::{Map, Value};

use super::edit::pointer;
use super::error::ScimError;
use super::schema::{Attribute, ENTERPRISE_URN, Kind, Mutability, ResourceType};
use super::text::fold;

/// Checks that a resource has what its schemas require.
pub(super) fn required(of: ResourceType, resource: &Map<String, Value>) -> Result<(), ScimError> {
    let missing = |urn: Option<&str>, attributes: &'static [Attribute], home: &Map<String, Value>| {
        let missing = attributes.iter().find(|attribute| attribute.required && !home.contains_key(attribute.name))?;
        Some(ScimError::InvalidValue(format!("`{}` is required", pointer(urn, missing, None))))
    };
    let parts = |attributes: &'static [Attribute], home: &Map<String, Value>| {
        attributes.iter().filter(|attribute| attribute.kind == Kind::Complex).find_map(|attribute| {
            let elements = match home.get(attribute.name)? {
                Value::Array(list) => list.as_slice(),
                one => std::slice::from_ref(one),
            };
            let lacks = |sub: &&Attribute| sub.required && elements.iter().any(|one| one.get(sub.name).is_none());
            let sub = attribute.subs.iter().find(lacks)?;
            Some(ScimError::InvalidValue(format!("`{}.{}` is required", attribute.name, sub.name)))
        })
    };
    let of_a_file = matches!(of, ResourceType::Registered(_));
    let core = missing(None, of.attributes(), resource)
        .or_else(|| if of_a_file { parts(of.attributes(), resource) } else { None });
    let inside = || {
        of.extensions().iter().find_map(|extension| match resource.get(extension.urn).and_then(Value::as_object) {
            None if extension.required => {
                Some(ScimError::InvalidValue(format!("the extension `{}` is required", extension.urn)))
            }
            None => None,
            Some(home) => missing(Some(extension.urn), extension.attributes, home)
                .or_else(|| if of_a_file { parts(extension.attributes, home) } else { None }),
        })
    };
    core.or_else(inside).map_or(Ok(()), Err)
}

/// Checks that a change leaves what its schemas permit to be set only once (RFC 7643 §2.2).
///
/// # Errors
/// `mutability`
pub(super) fn unchanged(of: ResourceType, before: &Value, after: &Value) -> Result<(), ScimError> {
    if !matches!(of, ResourceType::Registered(_)) {
        return Ok(());
    }
    let core = std::iter::once((None, of.attributes()));
    let inside = of.extensions().iter().map(|extension| (Some(extension.urn), extension.attributes));
    // An extension may go as a whole: identity providers replace people without it.
    let there = |urn: Option<&str>| urn.is_none_or(|urn| after.get(urn).is_some());
    for (urn, attributes) in core.chain(inside).filter(|(urn, _)| there(*urn)) {
        let value = |resource: &Value, name: &str, sub: Option<&str>| {
            let home = urn.map_or(Some(resource), |urn| resource.get(urn))?;
            let value = home.get(name)?;
            sub.map_or(Some(value), |sub| value.get(sub)).cloned()
        };
        for attribute in attributes {
            let subs = attribute.subs.iter().filter(|_| !attribute.multi).map(Some);
            for sub in std::iter::once(None).chain(subs) {
                let name = sub.map(|sub: &Attribute| sub.name);
                let was = value(before, attribute.name, name);
                if sub.unwrap_or(attribute).mutability == Mutability::Immutable
                    && was.is_some()
                    && was != value(after, attribute.name, name)
                {
                    let pointer = pointer(urn, attribute, sub);
                    return Err(ScimError::Mutability(format!("`{pointer}` is immutable and has a value already")));
                }
            }
        }
    }
    Ok(())
}

/// The manager of a user.
pub(super) fn reference(resource: &Map<String, Value>) -> Option<&Value> {
    resource.get(ENTERPRISE_URN)?.get("manager")
}

/// Removes the URL of a former manager where only the id of the manager has changed.
pub(super) fn drop_stale_reference(before: Option<Value>, resource: &mut Map<String, Value>) {
    let Some(Value::Object(before)) = before else { return };
    let manager = resource.get_mut(ENTERPRISE_URN).and_then(|extension| extension.get_mut("manager"));
    if let Some(Value::Object(now)) = manager
        && now.get("value") != before.get("value")
        && now.get("$ref") == before.get("$ref")
    {
        now.shift_remove("$ref");
    }
}

/// The values of a resource that no other one of its type may have, in the form in which they are compared, each with the
/// path of its attribute.
#[must_use]
pub(crate) fn unique_values(of: ResourceType, resource: &Value) -> Vec<(String, String)> {
    let core = of.attributes().iter().map(|attribute| (None, attribute));
    let extensions = of.extensions().iter();
    let inside = extensions.flat_map(|one| one.attributes.iter().map(|attribute| (Some(one.urn), attribute)));
    let unique = core.chain(inside).filter(|(_, attribute)| attribute.unique);
    unique
        .filter_map(|(urn, attribute)| {
            let home = urn.map_or(Some(resource), |urn| resource.get(urn))?;
            let value = match home.get(attribute.name)? {
                Value::String(text) if attribute.case_exact => text.clone(),
                Value::String(text) => fold(text),
                Value::Number(number) => number.to_string(),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((pointer(urn, attribute, None), value))
        })
        .collect()
}
