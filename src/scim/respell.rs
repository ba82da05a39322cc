//! Brings what was stored before a file described it to the spelling of its schema. Names have no case (RFC 7643 §2.1).

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::schema::{Attribute, Home, ResourceType};

/// A stored resource in the spelling of its schemas.
pub(super) fn respelled(of: ResourceType, stored: &Map<String, Value>) -> Cow<'_, Map<String, Value>> {
    if !matches!(of, ResourceType::Registered(_)) {
        return Cow::Borrowed(stored);
    }
    let mut resource = stored.clone();
    respell(of, &mut resource);
    Cow::Owned(resource)
}

/// Brings the extensions of a stored resource, and all attributes of a type from a file, to the spelling of the schemas.
/// Of two names that differ in case only, the one in that spelling counts.
pub(super) fn respell(of: ResourceType, resource: &mut Map<String, Value>) {
    if !matches!(of, ResourceType::Registered(_)) {
        return;
    }
    let urns: Vec<&'static str> = of.extensions().iter().map(|extension| extension.urn).collect();
    rename(resource, &urns);
    if of.home() == Home::Resources {
        attributes(resource, of.attributes());
    }
    for extension in of.extensions() {
        if let Some(Value::Object(home)) = resource.get_mut(extension.urn) {
            attributes(home, extension.attributes);
        }
    }
    if let Some(Value::Array(schemas)) = resource.get_mut("schemas") {
        let listed = std::mem::take(schemas).into_iter().map(|one| {
            let known = one.as_str().and_then(|one| spelled(&urns, one));
            known.map_or(one, Value::from)
        });
        for one in listed {
            if !schemas.contains(&one) {
                schemas.push(one);
            }
        }
    }
}

fn spelled(known: &[&'static str], name: &str) -> Option<&'static str> {
    known.iter().copied().find(|known| known.eq_ignore_ascii_case(name))
}

fn attributes(home: &mut Map<String, Value>, schema: &'static [Attribute]) {
    let names: Vec<&'static str> = schema.iter().map(|attribute| attribute.name).collect();
    rename(home, &names);
    for attribute in schema.iter().filter(|attribute| !attribute.subs.is_empty()) {
        let subs: Vec<&'static str> = attribute.subs.iter().map(|sub| sub.name).collect();
        match home.get_mut(attribute.name) {
            Some(Value::Object(object)) => rename(object, &subs),
            Some(Value::Array(list)) => {
                list.iter_mut().filter_map(Value::as_object_mut).for_each(|object| rename(object, &subs));
            }
            _ => {}
        }
    }
}

fn rename(object: &mut Map<String, Value>, known: &[&'static str]) {
    let renamed = |key: &str| spelled(known, key).filter(|name| *name != key);
    if !object.keys().any(|key| renamed(key).is_some()) {
        return;
    }
    let (others, mut exact): (Map<String, Value>, Map<String, Value>) =
        std::mem::take(object).into_iter().partition(|(key, _)| renamed(key).is_some());
    for (key, value) in others {
        let Some(name) = spelled(known, &key) else { continue };
        match (exact.get_mut(name), value) {
            (None, value) => drop(exact.insert(name.to_owned(), value)),
            (Some(Value::Object(there)), Value::Object(parts)) => {
                for (part, value) in parts {
                    if !there.keys().any(|key| key.eq_ignore_ascii_case(&part)) {
                        there.insert(part, value);
                    }
                }
            }
            (Some(_), _) => {}
        }
    }
    *object = exact;
}
