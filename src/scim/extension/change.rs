//! Changes of extensions: the URN and its names are read against the resource when they are applied.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::{Map, Value};

use super::{Reading, Readings, begins_with, compare, spelling, without_nulls};
use crate::scim::assign::Message;
use crate::scim::bounds::json_length;
use crate::scim::edit::Verb;
use crate::scim::error::{ScimError, shown};
use crate::scim::filter::Filter;
use crate::scim::finding::{FindingCode, Findings};
use crate::scim::normalize::MAX_ELEMENTS;
use crate::scim::parse::PatchPath;
use crate::scim::schema::ResourceType;
use crate::scim::work::{Work, steps};

/// What a request says about its extensions.
#[derive(Debug, Clone, Copy)]
pub(in crate::scim) struct Request<'a> {
    pub(in crate::scim) of: ResourceType,
    pub(in crate::scim) message: Message,
    /// The extensions in `schemas`.
    pub(in crate::scim) listed: &'a [String],
    /// The name is the path of an operation, which must be understood.
    pub(in crate::scim) explicit: bool,
}

/// One change of an extension.
#[derive(Debug, Clone)]
pub(in crate::scim) struct ExtensionEdit {
    verb: Verb,
    message: Message,
    explicit: bool,
    readings: Readings,
    /// The reading that the request supports.
    meant: Option<Reading>,
    /// Refused unless the resource has the extension: `strictness` is `Strict`, and `schemas` does not list the URN.
    unlisted: bool,
    filter: Option<Filter>,
    /// The part of the elements that pass the filter.
    part: Option<String>,
    /// None for "no value".
    value: Option<Value>,
    /// True when the request had a value at all.
    given: bool,
}

impl ExtensionEdit {
    /// The change that an assignment of an unknown name asks for; none when the name is not in an extension.
    ///
    /// # Errors
    /// `invalidPath`, `invalidValue`.
    pub(in crate::scim) fn new(
        request: Request<'_>,
        verb: Verb,
        path: PatchPath,
        value: Option<&Value>,
        findings: &mut Findings,
    ) -> Result<Option<Self>, ScimError> {
        let Some(mut readings) = Readings::of(&path.attribute) else { return Ok(None) };
        if let Some(filter) = &path.filter {
            compare::checked_inside(filter).map_err(|problem| ScimError::InvalidPath(problem.to_string()))?;
            readings.0.retain(|reading| reading.name.is_some());
        }
        let object = path.filter.is_none() && matches!(value, Some(Value::Object(_)));
        let listed = readings.among(&request.listed.iter().map(String::as_str)).map(|(_, reading)| reading.clone());
        let is_listed = listed.is_some();
        let whole = request.message == Message::Whole;
        let form = readings.by_form(request.of, object).cloned();
        // In a whole resource, an object under a URN is an extension, whatever its URN looks like.
        let meant = listed.or(form).or_else(|| readings.0.first().filter(|_| whole && object).cloned());
        if readings.0.is_empty() || (whole && meant.is_none()) {
            return Ok(None);
        }
        if value.is_none() && verb != Verb::Remove {
            return Err(ScimError::InvalidValue(format!("`{}` comes without a value", shown(&path.to_string()))));
        }
        let strict = findings.is_strict();
        let kept = verb != Verb::Remove && value.and_then(without_nulls).is_some();
        if let Some(meant) = meant.as_ref().filter(|_| kept && (is_listed || !strict)) {
            findings.note(FindingCode::ExtensionNotDescribed, &meant.urn);
        }
        Ok(Some(Self {
            verb,
            message: request.message,
            explicit: request.explicit,
            readings,
            meant,
            unlisted: strict && !is_listed,
            filter: path.filter,
            part: path.sub,
            value: value.filter(|value| !value.is_null()).cloned(),
            given: value.is_some(),
        }))
    }

    /// True when the change removes a value: `remove`, or `replace` with nothing. `add` of nothing changes nothing.
    fn unsets(&self) -> bool {
        self.verb == Verb::Remove || (self.verb == Verb::Replace && self.value.is_none())
    }

    /// The URN in the spelling of the resource, and the names behind it; none when there is nothing to do.
    fn located(&self, resource: &Map<String, Value>) -> Result<Option<(String, &Reading)>, ScimError> {
        if let Some((urn, reading)) = self.readings.among(&resource.keys().map(String::as_str)) {
            return Ok(Some((urn.to_owned(), reading)));
        }
        let refuse = |text: String| match self.message {
            Message::Whole => ScimError::InvalidValue(text),
            Message::Patch => ScimError::InvalidPath(text),
        };
        let asks = self.value.as_ref().and_then(without_nulls).is_some();
        match &self.meant {
            None if self.explicit || asks => {
                let path = self.readings.0.first().map_or("", |reading| reading.urn.as_str());
                Err(refuse(format!(
                    "`{}` is no attribute that is stored here; `/Schemas` lists those there are",
                    shown(path)
                )))
            }
            None => Ok(None),
            Some(_) if self.verb == Verb::Remove || !asks => Ok(None),
            Some(meant) if self.unlisted => Err(refuse(format!(
                "`{}` is no schema of this resource; list it in `schemas` of the request (refused by `strictness: Strict`)",
                shown(&meant.urn)
            ))),
            Some(meant) => Ok(Some((meant.urn.clone(), meant))),
        }
    }

    /// Applies the change. An extension that is left empty is removed later.
    ///
    /// # Errors
    /// `invalidPath`, `invalidValue`, `noTarget`, `tooMany`.
    pub(in crate::scim) fn apply(&self, resource: &mut Map<String, Value>, work: &mut Work) -> Result<(), ScimError> {
        work.spend(1 + self.value.as_ref().map_or(0, |value| steps(json_length(value))))?;
        let Some((urn, reading)) = self.located(resource)? else { return Ok(()) };
        let home = resource.entry(urn.clone()).or_insert_with(|| Value::Object(Map::new()));
        let Value::Object(home) = home else { return Err(ScimError::Internal) };
        let Some(name) = &reading.name else { return self.whole(&urn, home, work) };
        match (&self.filter, &reading.sub) {
            (Some(filter), _) => self.elements(home, name, filter, work),
            (None, None) if self.verb == Verb::Remove => self.remove(home, name, work),
            (None, sub) => set(home, (name, sub.as_deref()), self.verb, self.value.as_ref(), work),
        }
    }

    fn whole(&self, urn: &str, home: &mut Map<String, Value>, work: &mut Work) -> Result<(), ScimError> {
        match (&self.value, self.verb) {
            (None, Verb::Add) => Ok(()),
            (None, _) => {
                home.clear();
                Ok(())
            }
            (Some(_), Verb::Remove) => Err(ScimError::InvalidPath(format!(
                "`{}` is a schema; `remove` needs the path of one of its attributes",
                shown(urn)
            ))),
            (Some(Value::Object(given)), verb) => {
                for (key, value) in given {
                    work.spend(1)?;
                    // Clients whose extensions are objects with a schema of their own send it along.
                    if key.eq_ignore_ascii_case("schemas") {
                        continue;
                    }
                    set(home, names(urn, key), verb, Some(value).filter(|value| !value.is_null()), work)?;
                }
                Ok(())
            }
            (Some(_), _) => Err(ScimError::InvalidValue(format!("`{}` must be an object", shown(urn)))),
        }
    }

    fn remove(&self, home: &mut Map<String, Value>, name: &str, work: &mut Work) -> Result<(), ScimError> {
        let Some(key) = spelling(home, name).map(str::to_owned) else { return Ok(()) };
        match (home.get_mut(&key), &self.value) {
            // Any value, even none, is a list of what is meant.
            (Some(Value::Array(there)), listed) if self.given => {
                let listed = match listed {
                    Some(Value::Array(listed)) => listed.as_slice(),
                    Some(one) => std::slice::from_ref(one),
                    None => &[],
                };
                work.spend(there.len().saturating_mul(listed.len()))?;
                there.retain(|element| !listed.iter().any(|listed| means(listed, element)));
                if there.is_empty() {
                    home.shift_remove(&key);
                }
                Ok(())
            }
            (_, Some(Value::Object(_))) => Err(ScimError::InvalidValue(format!(
                "`remove` of `{}` takes no value; put the part to remove into the path",
                shown(name)
            ))),
            _ => {
                home.shift_remove(&key);
                Ok(())
            }
        }
    }

    fn elements(
        &self,
        home: &mut Map<String, Value>,
        name: &str,
        filter: &Filter,
        work: &mut Work,
    ) -> Result<(), ScimError> {
        let value = self.value.as_ref().and_then(without_nulls);
        if self.verb == Verb::Add && value.is_none() {
            return Ok(());
        }
        let key = spelling(home, name).unwrap_or(name).to_owned();
        let mut elements = match home.get_mut(&key) {
            Some(Value::Array(there)) => std::mem::take(there),
            Some(_) => {
                return Err(ScimError::InvalidPath(format!(
                    "`{}` has a single value, so it cannot be filtered",
                    shown(name)
                )));
            }
            None => Vec::new(),
        };
        let mut matched = false;
        let mut left = Vec::with_capacity(elements.len());
        for mut element in elements.drain(..) {
            if !compare::selects(filter, &element, work)? {
                left.push(element);
                continue;
            }
            matched = true;
            work.spend(1 + self.value.as_ref().map_or(0, |value| steps(json_length(value))))?;
            match (&self.part, &mut element) {
                (Some(part), Value::Object(element)) => put(element, part, self.value.as_ref(), self.unsets()),
                (Some(part), _) if !self.unsets() => {
                    return Err(ScimError::InvalidPath(format!(
                        "an element of `{}` has no `{}`",
                        shown(name),
                        shown(part)
                    )));
                }
                (Some(_), _) => {}
                (None, _) if self.unsets() => continue,
                (None, Value::Object(element)) if self.verb == Verb::Add => {
                    let Some(Value::Object(parts)) = &self.value else {
                        return Err(ScimError::InvalidValue(format!(
                            "an element of `{}` must be an object",
                            shown(name)
                        )));
                    };
                    for (name, value) in parts {
                        put(element, name, Some(value), false);
                    }
                }
                (None, element) => *element = value.clone().unwrap_or(Value::Null),
            }
            left.extend(without_nulls(&element));
        }
        if !matched && !self.unsets() && self.value.is_some() {
            return Err(ScimError::NoTarget(format!(
                "no element of `{}` passes `{}`",
                shown(name),
                shown(&filter.to_string())
            )));
        }
        if left.is_empty() {
            home.shift_remove(&key);
        } else {
            home.insert(key, Value::Array(left));
        }
        Ok(())
    }
}

/// The attribute, and its part, that a key in the object of a URN names.
fn names<'k>(urn: &str, key: &'k str) -> (&'k str, Option<&'k str>) {
    let key = begins_with(key, urn).filter(|rest| !rest.is_empty()).unwrap_or(key);
    match key.split_once('.') {
        Some((name, sub)) if !name.is_empty() && !sub.is_empty() && !sub.contains('.') => (name, Some(sub)),
        _ => (key, None),
    }
}

/// Sets a member of an object, or removes it where the value is none and `unsets`.
fn put(object: &mut Map<String, Value>, name: &str, value: Option<&Value>, unsets: bool) {
    let key = spelling(object, name).unwrap_or(name).to_owned();
    match value.and_then(without_nulls) {
        Some(value) if !unsets => drop(object.insert(key, value)),
        None if !unsets && value.is_none() => {}
        _ => drop(object.shift_remove(&key)),
    }
}

/// True when a listed value means an element: the same, or with the same `value`.
fn means(listed: &Value, element: &Value) -> bool {
    let value = |one: &Value| one.get("value").cloned();
    listed == element || value(listed).is_some_and(|listed| Some(listed) == value(element))
}

/// Sets an attribute, or one part of it. A `value` of none is "no value".
fn set(
    home: &mut Map<String, Value>,
    (name, sub): (&str, Option<&str>),
    verb: Verb,
    value: Option<&Value>,
    work: &mut Work,
) -> Result<(), ScimError> {
    let key = spelling(home, name).unwrap_or(name).to_owned();
    let unsets = verb == Verb::Remove || (verb == Verb::Replace && value.is_none());
    let cleaned = value.and_then(without_nulls);
    // `add` of nothing changes nothing.
    let value = value.filter(|_| verb != Verb::Add || cleaned.is_some());
    match (home.get_mut(&key), sub) {
        (Some(Value::Object(there)), Some(sub)) => put(there, sub, value, unsets),
        (Some(Value::Array(there)), Some(sub)) => {
            work.spend(there.len().saturating_mul(1 + value.map_or(0, |value| steps(json_length(value)))))?;
            for element in there.iter_mut().filter_map(Value::as_object_mut) {
                put(element, sub, value, unsets);
            }
            there.retain(|element| without_nulls(element).is_some());
        }
        (Some(_), Some(_)) if unsets => {}
        (Some(_), Some(_)) => {
            return Err(ScimError::InvalidPath(format!("`{}` has a single value without parts", shown(name))));
        }
        (None, Some(sub)) => {
            if let Some(value) = cleaned.filter(|_| !unsets) {
                home.insert(key.clone(), Value::Object(Map::from_iter([(sub.to_owned(), value)])));
            }
        }
        (Some(Value::Array(there)), None) if verb == Verb::Add => {
            let new = match cleaned {
                Some(Value::Array(new)) => new,
                Some(one) => vec![one],
                None => Vec::new(),
            };
            for element in new {
                work.spend(steps(json_length(&element)).saturating_add(there.len()))?;
                if !there.contains(&element) {
                    there.push(element);
                }
                if there.len() > MAX_ELEMENTS {
                    return Err(ScimError::InvalidValue(format!(
                        "`{}` would have more than {MAX_ELEMENTS} entries",
                        shown(name)
                    )));
                }
            }
        }
        (Some(Value::Object(there)), None) if value.is_some_and(Value::is_object) => {
            for (sub, value) in value.and_then(Value::as_object).into_iter().flatten() {
                work.spend(1)?;
                put(there, sub, Some(value), false);
            }
        }
        (_, None) => match cleaned {
            Some(value) => drop(home.insert(key.clone(), value)),
            None if verb == Verb::Replace => drop(home.shift_remove(&key)),
            None => {}
        },
    }
    if home.get(&key).is_some_and(|left| without_nulls(left).is_none()) {
        home.shift_remove(&key);
    }
    Ok(())
}

/// What the members of one object say about one name.
#[derive(Default)]
struct Slot<'v> {
    value: Option<&'v Value>,
    parts: HashMap<String, Self>,
}

impl<'v> Slot<'v> {
    fn at<'n>(&mut self, names: impl Iterator<Item = &'n str>) -> &mut Self {
        names.fold(self, |slot, name| slot.parts.entry(name.to_ascii_lowercase()).or_default())
    }

    /// True when something new is said; none when it contradicts what was said.
    fn take(&mut self, urn: &str, value: &'v Value) -> Option<bool> {
        match value {
            Value::Object(parts) if !parts.is_empty() => {
                let mut new = false;
                for (key, value) in parts {
                    let (name, sub) = names(urn, key);
                    if self.value.is_some() {
                        return None;
                    }
                    new |= self.at(std::iter::once(name).chain(sub)).take(urn, value)?;
                }
                Some(new)
            }
            value if !self.parts.is_empty() || self.value.is_some_and(|there| there != value) => None,
            value => Some(self.value.replace(value).is_none()),
        }
    }
}

/// The changes of one object without repetitions.
///
/// # Errors
/// `invalidSyntax` for a name with two different values.
pub(in crate::scim) fn without_repetitions(
    edits: Vec<ExtensionEdit>,
    findings: &mut Findings,
) -> Result<Vec<ExtensionEdit>, ScimError> {
    let mut repeated = Vec::with_capacity(edits.len());
    {
        let mut all = Slot::default();
        let mut filtered: HashMap<(&str, String, Option<&str>), Option<&Value>> = HashMap::new();
        for edit in &edits {
            let path = edit.readings.0.first().map_or("", |reading| reading.urn.as_str());
            let new = if let Some(filter) = &edit.filter {
                match filtered.entry((path, filter.to_string(), edit.part.as_deref())) {
                    Entry::Vacant(slot) => {
                        slot.insert(edit.value.as_ref());
                        Some(true)
                    }
                    Entry::Occupied(there) => (*there.get() == edit.value.as_ref()).then_some(false),
                }
            } else {
                let value = edit.value.as_ref().unwrap_or(&Value::Null);
                all.at(path.split([':', '.'])).take(path, value)
            };
            let Some(new) = new else {
                let path = shown(path);
                return Err(ScimError::InvalidSyntax(format!(
                    "`{path}` is given more than once, with different values"
                )));
            };
            if !new {
                findings.note(FindingCode::AttributeRepeated, path);
            }
            repeated.push(!new);
        }
    }
    let kept = edits.into_iter().zip(repeated).filter(|(_, repeated)| !repeated);
    Ok(kept.map(|(edit, _)| edit).collect())
}
