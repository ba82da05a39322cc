//! What schemas ask of a resource as a whole: that it has what is required, and keeps what can be set only once.

use serde_json::{Map, Number, Value};

use super::edit::pointer;
use super::error::ScimError;
use super::filter::time;
use super::respell::respelled;
use super::schema::{Attribute, ENTERPRISE_URN, Extension, Home, Kind, Mutability, ResourceType};
use super::text::fold;

/// True when a problem of an extension gives way to a change that takes access away: identity providers send users and
/// groups as they have them, whatever a file says of their extensions.
pub(super) fn gives_way(of: ResourceType, urn: &str, problem: &ScimError) -> bool {
    let about_values = matches!(
        problem,
        ScimError::InvalidSyntax(_)
            | ScimError::InvalidPath(_)
            | ScimError::InvalidValue(_)
            | ScimError::NoTarget(_)
            | ScimError::Mutability(_)
    );
    about_values && matches!(of, ResourceType::Registered(_)) && of.home() != Home::Resources && urn != ENTERPRISE_URN
}

/// Attributes in one object of a resource.
#[derive(Clone, Copy)]
struct Part<'r> {
    /// The URN of the extension.
    urn: Option<&'static str>,
    attributes: &'static [Attribute],
    /// The object before the change.
    before: Option<&'r Map<String, Value>>,
    after: &'r Map<String, Value>,
    /// What is required may be missing where it was missing before.
    lenient: bool,
}

/// What of a resource does not conform to its schemas, with the extension that it is in: what is required has to be
/// there, and what can be set only once stays (RFC 7643 §2.2).
pub(super) fn problems(
    of: ResourceType,
    before: Option<&Map<String, Value>>,
    after: &Map<String, Value>,
) -> Vec<(Option<&'static str>, ScimError)> {
    let mut problems = Vec::new();
    let of_a_file = matches!(of, ResourceType::Registered(_));
    let core = Part { urn: None, attributes: of.attributes(), before, after, lenient: false };
    let mut check = |part: Part<'_>, whole: bool| {
        let found =
            part.missing().or_else(|| if whole { part.missing_inside().or_else(|| part.changed()) } else { None });
        problems.extend(found.map(|problem| (part.urn, problem)));
    };
    check(core, of.home() == Home::Resources);
    for Extension { urn, attributes, .. } in of.extensions().iter().copied() {
        // An extension may go as a whole: identity providers replace people without it.
        let Some(after) = after.get(urn).and_then(Value::as_object) else { continue };
        let before = before.and_then(|before| before.get(urn)?.as_object());
        let lenient = of.home() != Home::Resources;
        check(Part { urn: Some(urn), attributes, before, after, lenient }, of_a_file);
    }
    let absent = of.extensions().iter().find(|extension| extension.required && !after.contains_key(extension.urn));
    problems.extend(absent.map(|absent| {
        let problem = ScimError::InvalidValue(format!("the extension `{}` is required", absent.urn));
        (Some(absent.urn), problem)
    }));
    problems
}

/// The objects of a complex attribute.
fn elements<'v>(home: &'v Map<String, Value>, attribute: &Attribute) -> &'v [Value] {
    match home.get(attribute.name) {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    }
}

impl Part<'_> {
    fn missing(&self) -> Option<ScimError> {
        let was_missing = |name| self.lenient && self.before.is_some_and(|before| !before.contains_key(name));
        let required = self.attributes.iter().filter(|attribute| attribute.required);
        let missing = required.filter(|attribute| !self.after.contains_key(attribute.name));
        let missing = missing.into_iter().find(|attribute| !was_missing(attribute.name))?;
        Some(ScimError::InvalidValue(format!("`{}` is required", pointer(self.urn, missing, None))))
    }

    fn missing_inside(&self) -> Option<ScimError> {
        let lacks = |home: &Map<String, Value>, attribute: &Attribute, sub: &Attribute| {
            elements(home, attribute).iter().any(|one| one.get(sub.name).is_none())
        };
        let complex = self.attributes.iter().filter(|attribute| attribute.kind == Kind::Complex);
        complex.into_iter().find_map(|attribute| {
            let lacked = |sub| self.lenient && self.before.is_some_and(|before| lacks(before, attribute, sub));
            let required = attribute.subs.iter().filter(|sub| sub.required);
            let sub = required.into_iter().find(|sub| lacks(self.after, attribute, sub) && !lacked(sub))?;
            Some(ScimError::InvalidValue(format!("`{}` is required", pointer(self.urn, attribute, Some(sub)))))
        })
    }

    fn changed(&self) -> Option<ScimError> {
        let before = self.before?;
        self.attributes.iter().find_map(|attribute| {
            let subs = attribute.subs.iter().filter(|_| !attribute.multi).map(Some);
            let leaf = std::iter::once(None::<&Attribute>).chain(subs).find(|sub| {
                let value = |home: &Map<String, Value>| {
                    let value = home.get(attribute.name)?;
                    sub.map_or(Some(value), |sub| value.get(sub.name)).cloned()
                };
                let was = value(before);
                sub.unwrap_or(attribute).mutability == Mutability::Immutable
                    && was.is_some()
                    && was != value(self.after)
            })?;
            let pointer = pointer(self.urn, attribute, leaf);
            Some(ScimError::Mutability(format!("`{pointer}` is immutable and has a value already")))
        })
    }
}

/// The values that can be set only once: of the core schema, and of the extensions that a PUT mentions.
pub(super) fn set_once(
    of: ResourceType,
    before: &Map<String, Value>,
    mentions: impl Fn(&str) -> bool,
) -> Map<String, Value> {
    let once = |attributes: &'static [Attribute], home: &Map<String, Value>| {
        let kept = attributes.iter().filter_map(|attribute| {
            let value = home.get(attribute.name)?;
            if attribute.mutability == Mutability::Immutable {
                return Some((attribute.name.to_owned(), value.clone()));
            }
            let subs = attribute.subs.iter().filter(|sub| sub.mutability == Mutability::Immutable);
            let parts = subs.filter_map(|sub| Some((sub.name.to_owned(), value.get(sub.name)?.clone())));
            let parts: Map<String, Value> = parts.filter(|_| !attribute.multi).collect();
            if parts.is_empty() { None } else { Some((attribute.name.to_owned(), Value::Object(parts))) }
        });
        kept.collect::<Map<String, Value>>()
    };
    let mut kept = once(of.attributes(), before);
    for extension in of.extensions().iter().filter(|extension| mentions(extension.urn)) {
        let parts = before.get(extension.urn).and_then(Value::as_object).map(|home| once(extension.attributes, home));
        if let Some(parts) = parts.filter(|parts| !parts.is_empty()) {
            kept.insert(extension.urn.to_owned(), Value::Object(parts));
        }
    }
    kept
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

/// The attributes whose values only one resource of a type may have.
fn unique_attributes(of: ResourceType) -> impl Iterator<Item = (Option<&'static str>, &'static Attribute)> {
    let core = of.attributes().iter().map(|attribute| (None, attribute));
    let extensions = of.extensions().iter();
    let inside = extensions.flat_map(|one| one.attributes.iter().map(|attribute| (Some(one.urn), attribute)));
    core.chain(inside).filter(|(_, attribute)| attribute.unique)
}

/// What [`unique_values`] follows from: the attributes of a type, and how they are compared. Empty where there are none.
#[must_use]
pub(crate) fn unique_form(of: ResourceType) -> String {
    let mut attributes: Vec<String> = unique_attributes(of)
        .map(|(urn, attribute)| {
            let case = if attribute.case_exact { "exact" } else { "folded" };
            format!("{} {:?} {case}", pointer(urn, attribute, None), attribute.kind)
        })
        .collect();
    attributes.sort();
    attributes.join(", ")
}

/// The values of a resource that no other one of its type may have, in a form that is equal where filters find them equal,
/// each with the path of its attribute.
#[must_use]
pub(crate) fn unique_values(of: ResourceType, resource: &Value) -> Vec<(String, String)> {
    let Some(resource) = resource.as_object().map(|resource| respelled(of, resource)) else { return Vec::new() };
    unique_attributes(of)
        .filter_map(|(urn, attribute)| {
            let home = urn.map_or(Some(&*resource), |urn| resource.get(urn)?.as_object())?;
            let value = match home.get(attribute.name)? {
                Value::String(text) => match (attribute.kind, attribute.case_exact) {
                    (Kind::DateTime, _) => time(text).map_or_else(|| text.clone(), |instant| instant.to_string()),
                    (_, true) => text.clone(),
                    (_, false) => fold(text),
                },
                Value::Number(number) => canonical(number),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((pointer(urn, attribute, None), value))
        })
        .collect()
}

/// A number in the form that equal ones share: `4` and `4.0` are one.
fn canonical(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() && value == 0.0 => "0".to_owned(),
        Some(value) if number.is_f64() && value.fract() == 0.0 => format!("{value:.0}"),
        _ => number.to_string(),
    }
}
