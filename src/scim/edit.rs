//! Changes of one resource: all of them are parsed and checked first, then applied to its JSON (RFC 7644 §3.5.2).

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::assign::{Assignment, Context, Message};
use super::element::ElementFilter;
use super::error::{ScimError, shown};
use super::extension::{self, ExtensionEdit};
use super::filter::{AttributePath, CompareOp, Filter, FilterValue, Test};
use super::finding::FindingCode;
use super::normalize::{self, Intake};
use super::schema::{Attribute, Home, Kind, Mutability, Resolved};
use super::work::{Work, steps};

/// The verb of a PATCH operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Add,
    Replace,
    Remove,
}

impl Verb {
    pub(super) fn from_word(word: &str) -> Option<Self> {
        [("add", Self::Add), ("replace", Self::Replace), ("remove", Self::Remove)]
            .into_iter()
            .find_map(|(name, verb)| name.eq_ignore_ascii_case(word).then_some(verb))
    }
}

/// The target of an edit.
#[derive(Debug, Clone)]
enum Target {
    /// The attribute as a whole.
    Whole,
    /// One sub-attribute; in a multi-valued attribute: of every element.
    Sub(&'static Attribute),
    /// The elements that pass the filter, or one of their sub-attributes.
    Elements(Box<Elements>, Option<&'static Attribute>),
}

/// Elements of a multi-valued attribute: the filter as it is printed, and as it is evaluated.
#[derive(Debug, Clone)]
struct Elements {
    filter: Filter,
    run: ElementFilter,
}

impl Elements {
    fn new(attribute: &'static Attribute, filter: Filter) -> Self {
        let run = ElementFilter::new(attribute, &filter);
        Self { filter, run }
    }
}

/// One change.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    /// Of an attribute of a schema.
    Attribute(AttributeEdit),
    /// Of an extension that no schema describes.
    Extension(Box<ExtensionEdit>),
    /// One that does not fit the schema of this extension, which gives way to a change that takes access away.
    Refused(&'static str, ScimError),
}

/// One change, checked against the schema, in a form that leaves no ambiguity when it is applied.
#[derive(Debug, Clone)]
pub(super) struct AttributeEdit {
    verb: Verb,
    extension: Option<&'static str>,
    attribute: &'static Attribute,
    target: Target,
    /// The value in its stored form; none means "no value".
    value: Option<Value>,
    /// True when the request had a value at all.
    given: bool,
    /// True for `active` of a user.
    is_activity: bool,
    /// True when `replace` needs an element that passes the filter (RFC 7644 §3.5.2.3), instead of making one.
    strict: bool,
}

impl Context<'_> {
    /// The edits for one object or one operation, checked against the schema.
    ///
    /// # Errors
    /// `invalidPath`, `invalidValue`; `invalidSyntax` where the request gives one attribute two different values.
    pub(super) fn edits(&mut self, assignments: Vec<Assignment>) -> Result<Vec<Edit>, ScimError> {
        let mut slots = Slots::default();
        let mut edits = Vec::with_capacity(assignments.len());
        for assignment in assignments {
            let urn = assignment.found.extension;
            let edit = match self.edit(assignment) {
                Ok(edit) => edit,
                Err(problem) => {
                    self.put_off(urn, Err(problem))?;
                    continue;
                }
            };
            // A password is read like other values and goes no further.
            if !slots.takes(&edit)? {
                self.findings.note(FindingCode::AttributeRepeated, &pointer(edit.extension, edit.attribute, None));
            } else if edit.attribute.mutability != Mutability::WriteOnly {
                edits.push(Edit::Attribute(edit));
            }
        }
        let extensions = extension::without_repetitions(std::mem::take(&mut self.extensions), self.findings)?;
        edits.extend(extensions.into_iter().map(|edit| Edit::Extension(Box::new(edit))));
        edits.extend(self.refused.drain(..).map(|(urn, problem)| Edit::Refused(urn, problem)));
        Ok(edits)
    }

    fn edit(&mut self, assignment: Assignment) -> Result<AttributeEdit, ScimError> {
        let Assignment { verb, found, path, value } = assignment;
        let Resolved { extension, attribute, sub } = found;
        let pointer = pointer(extension, attribute, sub);
        let given = value.is_some();
        if !given && verb != Verb::Remove {
            return Err(ScimError::InvalidValue(format!("`{pointer}` comes without a value")));
        }
        let value = value.unwrap_or(Value::Null);
        let structured = matches!(&value, Value::Object(object) if !object.is_empty());
        if verb == Verb::Remove && structured && !attribute.multi && sub.is_none() && attribute.default_sub().is_none()
        {
            return Err(ScimError::InvalidValue(format!(
                "`remove` of `{pointer}` takes no value; put the part to remove into the path, such as `{pointer}.x`"
            )));
        }
        let patch = self.message == Message::Patch;
        let mut intake = Intake { findings: &mut *self.findings, work: &mut *self.work, patch };
        let (target, value) = match (&path.filter, sub) {
            (Some(filter), _) => {
                if !attribute.multi {
                    return Err(ScimError::InvalidPath(format!(
                        "`{pointer}` has a single value, so it cannot be filtered"
                    )));
                }
                let filter =
                    filter.resolved_in(attribute).map_err(|problem| ScimError::InvalidPath(problem.to_string()))?;
                match &path.sub {
                    None => {
                        let value = intake.element(attribute, value, &pointer)?;
                        (Target::Elements(Box::new(Elements::new(attribute, filter)), None), value)
                    }
                    Some(name) => {
                        let Some(sub) = attribute.sub(name) else {
                            return Err(ScimError::InvalidPath(format!(
                                "`{pointer}` has no sub-attribute `{}`",
                                shown(name)
                            )));
                        };
                        let value = intake.simple(sub, value, &format!("{pointer}.{}", sub.name))?;
                        (Target::Elements(Box::new(Elements::new(attribute, filter)), Some(sub)), value)
                    }
                }
            }
            (None, Some(sub)) => (Target::Sub(sub), intake.simple(sub, value, &pointer)?),
            (None, None) => (Target::Whole, intake.attribute(attribute, value, &pointer)?),
        };
        let strict = self.findings.is_strict();
        let is_activity = self.of.home() == Home::Users && extension.is_none() && attribute.name == "active";
        Ok(AttributeEdit { verb, extension, attribute, target, value, given, is_activity, strict })
    }
}

pub(super) fn pointer(extension: Option<&str>, attribute: &Attribute, sub: Option<&Attribute>) -> String {
    AttributePath {
        schema: extension.map(str::to_owned),
        name: attribute.name.to_owned(),
        sub: sub.map(|sub| sub.name.to_owned()),
    }
    .to_string()
}

/// The targets of the edits of one object. The members of a JSON object have no order, so two of them must not give one
/// attribute different values.
#[derive(Default)]
struct Slots {
    taken: HashMap<Slot, Option<Value>>,
    /// Attributes that are set as a whole.
    whole: HashSet<(Option<&'static str>, &'static str)>,
    /// Attributes of which a part is set.
    part: HashSet<(Option<&'static str>, &'static str)>,
}

/// Extension, attribute, filter, sub-attribute.
type Slot = (Option<&'static str>, &'static str, Option<String>, Option<&'static str>);

impl Slots {
    /// True when the edit is to be made; false when an earlier one is the same.
    fn takes(&mut self, edit: &AttributeEdit) -> Result<bool, ScimError> {
        let key = (edit.extension, edit.attribute.name);
        let contradiction = || {
            let pointer = pointer(edit.extension, edit.attribute, None);
            Err(ScimError::InvalidSyntax(format!("`{pointer}` is given more than once, with different values")))
        };
        let (filter, sub) = match &edit.target {
            Target::Whole => (None, None),
            Target::Sub(sub) => (None, Some(sub.name)),
            Target::Elements(elements, sub) => (Some(elements.filter.to_string()), sub.map(|sub| sub.name)),
        };
        let whole = matches!(edit.target, Target::Whole);
        let new = self.take((key.0, key.1, filter, sub), edit.value.as_ref());
        if whole {
            self.whole.insert(key);
        } else {
            self.part.insert(key);
        }
        let mixed = self.whole.contains(&key) && self.part.contains(&key);
        match (new, edit.attribute.multi, &edit.value) {
            (None, ..) => return contradiction(),
            (Some(_), true, _) if mixed => return contradiction(),
            // The parts of an object are entered separately, so that `name` and `name.givenName` may be used together.
            (Some(true), false, Some(Value::Object(parts))) if whole => {
                for (name, value) in parts {
                    let Some(sub) = edit.attribute.sub(name) else { continue };
                    let value = if value.is_null() { None } else { Some(value) };
                    if self.take((key.0, key.1, None, Some(sub.name)), value).is_none() {
                        return contradiction();
                    }
                }
            }
            (Some(_), false, None) if whole && mixed => return contradiction(),
            (Some(_), false, _) if !whole && mixed && self.taken.get(&(key.0, key.1, None, None)) == Some(&None) => {
                return contradiction();
            }
            _ => {}
        }
        Ok(new == Some(true))
    }

    /// True when the slot was free; none when it has another value.
    fn take(&mut self, slot: Slot, value: Option<&Value>) -> Option<bool> {
        match self.taken.get(&slot) {
            None => {
                self.taken.insert(slot, value.cloned());
                Some(true)
            }
            Some(there) if there.as_ref() == value => Some(false),
            Some(_) => None,
        }
    }
}

impl Edit {
    /// Applies the change. The resource is in the stored form before and after.
    ///
    /// # Errors
    /// `invalidValue` for clearing what is required, `noTarget` for an element that does not exist and cannot be
    /// created.
    pub(super) fn apply(&self, resource: &mut Map<String, Value>, work: &mut Work) -> Result<(), ScimError> {
        match self {
            Self::Attribute(edit) => edit.apply(resource, work),
            Self::Extension(edit) => edit.apply(resource, work),
            Self::Refused(_, problem) => Err(problem.clone()),
        }
    }

    pub(super) fn sets_reference(&self) -> bool {
        match self {
            Self::Attribute(edit) => edit.sets_reference(),
            Self::Extension(_) | Self::Refused(..) => false,
        }
    }

    /// The extension with a schema that this changes.
    pub(super) fn extension(&self) -> Option<&'static str> {
        match self {
            Self::Attribute(edit) => edit.extension,
            Self::Extension(_) => None,
            Self::Refused(urn, _) => Some(urn),
        }
    }
}

impl AttributeEdit {
    fn apply(&self, resource: &mut Map<String, Value>, work: &mut Work) -> Result<(), ScimError> {
        work.spend(1)?;
        let home = match self.extension {
            None => resource,
            Some(urn) => match resource.entry(urn).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(home) => home,
                _ => return Err(ScimError::Internal),
            },
        };
        match &self.target {
            Target::Whole => self.whole(home, work),
            Target::Sub(sub) if self.attribute.multi => self.elements(home, None, Some(sub), work),
            Target::Sub(sub) => {
                let unset = self.unsets();
                let mut object = match home.remove(self.attribute.name) {
                    Some(Value::Object(object)) => object,
                    _ => Map::new(),
                };
                match &self.value {
                    Some(value) if !unset => drop(object.insert(sub.name.to_owned(), value.clone())),
                    _ if unset => drop(object.shift_remove(sub.name)),
                    _ => {}
                }
                if !object.is_empty() {
                    home.insert(self.attribute.name.to_owned(), Value::Object(object));
                }
                Ok(())
            }
            Target::Elements(elements, sub) => self.elements(home, Some(elements), *sub, work),
        }
    }

    /// True when the edit gives the URL of a reference, such as that of the manager.
    fn sets_reference(&self) -> bool {
        match (&self.target, &self.value) {
            (Target::Whole, Some(Value::Object(value))) => value.contains_key("$ref"),
            (Target::Sub(sub), _) => sub.name == "$ref",
            _ => false,
        }
    }

    /// True when the edit removes the value: `remove`, or `replace` with nothing. `add` of nothing changes nothing.
    fn unsets(&self) -> bool {
        match self.verb {
            Verb::Remove => true,
            Verb::Replace => self.value.is_none(),
            Verb::Add => false,
        }
    }

    fn whole(&self, home: &mut Map<String, Value>, work: &mut Work) -> Result<(), ScimError> {
        let name = self.attribute.name;
        if self.verb == Verb::Remove && self.attribute.multi && self.given {
            return self.remove_listed(home, work);
        }
        if self.unsets() {
            // What an extension requires is required where there is the extension.
            if self.attribute.required && self.extension.is_none() {
                let text = format!("`{name}` is required and cannot be removed");
                return Err(match self.verb {
                    Verb::Remove => ScimError::Mutability(text),
                    Verb::Add | Verb::Replace => ScimError::InvalidValue(text),
                });
            }
            // A person is active or not. Without a value, access would follow what nobody can read.
            if self.is_activity {
                return Ok(());
            }
            home.shift_remove(name);
            return Ok(());
        }
        let Some(value) = &self.value else { return Ok(()) };
        match (home.get_mut(name), value) {
            (Some(Value::Array(there)), Value::Array(new)) if self.verb == Verb::Add => {
                for element in new {
                    work.spend(steps(normalize::size(element)))?;
                    add_element(there, element.clone(), name, work)?;
                }
            }
            (there, Value::Object(new)) => {
                let mut merged = match there {
                    Some(Value::Object(there)) => std::mem::take(there),
                    _ => Map::new(),
                };
                for (sub, value) in new {
                    if value.is_null() {
                        merged.shift_remove(sub);
                    } else {
                        merged.insert(sub.clone(), value.clone());
                    }
                }
                if merged.is_empty() {
                    home.shift_remove(name);
                } else {
                    home.insert(name.to_owned(), Value::Object(merged));
                }
            }
            (_, value) => drop(home.insert(name.to_owned(), value.clone())),
        }
        Ok(())
    }

    /// Applies a `remove` with a list of values: removes exactly these.
    fn remove_listed(&self, home: &mut Map<String, Value>, work: &mut Work) -> Result<(), ScimError> {
        let Some(Value::Array(listed)) = &self.value else { return Ok(()) };
        let Some(Value::Array(there)) = home.get_mut(self.attribute.name) else { return Ok(()) };
        if self.attribute.kind != Kind::Complex {
            work.spend(there.len().saturating_mul(listed.len()))?;
            there.retain(|element| !listed.contains(element));
            if there.is_empty() {
                home.shift_remove(self.attribute.name);
            }
            return Ok(());
        }
        let listed: Vec<Listed> = listed.iter().filter_map(|listed| Listed::new(self.attribute, listed)).collect();
        let mut left = Vec::with_capacity(there.len());
        for element in std::mem::take(there) {
            work.spend(steps(normalize::size(&element)))?;
            work.spend(listed.len())?;
            let goes =
                Listed::new(self.attribute, &element).is_some_and(|own| listed.iter().any(|listed| listed.means(&own)));
            if !goes {
                left.push(element);
            }
        }
        if left.is_empty() {
            home.shift_remove(self.attribute.name);
        } else {
            *there = left;
        }
        Ok(())
    }

    fn elements(
        &self,
        home: &mut Map<String, Value>,
        filter: Option<&Elements>,
        sub: Option<&'static Attribute>,
        work: &mut Work,
    ) -> Result<(), ScimError> {
        let name = self.attribute.name;
        let mut elements = match home.shift_remove(name) {
            Some(Value::Array(elements)) => elements,
            _ => Vec::new(),
        };
        let mut matched = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            work.spend(1)?;
            if match filter {
                Some(elements) => elements.run.passes(element, work)?,
                None => true,
            } {
                matched.push(index);
            }
        }
        if self.unsets() {
            let mut next = matched.into_iter().peekable();
            let mut index = 0;
            elements.retain_mut(|element| {
                let here = next.next_if_eq(&index).is_some();
                index += 1;
                if !here {
                    return true;
                }
                let (Some(sub), Value::Object(map)) = (sub, element) else { return false };
                map.shift_remove(sub.name);
                says_something(map)
            });
        } else if let Some(value) = &self.value {
            let touched = if matched.is_empty() {
                if let (true, Verb::Replace, Some(elements)) = (self.strict, self.verb, filter) {
                    return Err(ScimError::NoTarget(format!(
                        "no element of `{name}` passes `{}`; `add` it (refused by `strictness: Strict`)",
                        shown(&elements.filter.to_string())
                    )));
                }
                let mut new = match filter {
                    Some(elements) => self.new_element(&elements.filter)?,
                    None => Map::new(),
                };
                set(&mut new, sub, value);
                vec![add_element(&mut elements, Value::Object(new), name, work)?]
            } else {
                let cost = steps(normalize::size(value));
                for &index in &matched {
                    work.spend(cost)?;
                    if let Some(Value::Object(element)) = elements.get_mut(index) {
                        if let (Verb::Replace, None, Some(elements)) = (self.verb, sub, filter) {
                            // The attributes by which the element was selected stay, unless the value has them too.
                            let selecting = names(&elements.filter);
                            element.retain(|name, _| selecting.contains(&name.as_str()));
                        }
                        set(element, sub, value);
                    }
                }
                matched
            };
            if let Some(&winner) = touched.iter().find(|&&index| normalize::primary_at(&elements, index)) {
                normalize::clear_other_primaries(&mut elements, winner);
            }
        }
        if !elements.is_empty() {
            home.insert(name.to_owned(), Value::Array(elements));
        }
        Ok(())
    }

    /// The element that satisfies the filter, if the filter consists of `eq` only.
    fn new_element(&self, filter: &Filter) -> Result<Map<String, Value>, ScimError> {
        let mut element = Map::new();
        let terms = match filter {
            Filter::And(terms) => terms.as_slice(),
            one => std::slice::from_ref(one),
        };
        for term in terms {
            let value = match term {
                Filter::Attribute(_, Test::Compare(CompareOp::Equal, FilterValue::String(text))) => text.clone().into(),
                Filter::Attribute(_, Test::Compare(CompareOp::Equal, FilterValue::Bool(value))) => (*value).into(),
                _ => {
                    return Err(ScimError::NoTarget(format!(
                        "no element of `{}` passes `{}`, and the filter does not define a new one",
                        self.attribute.name,
                        shown(&filter.to_string())
                    )));
                }
            };
            if let Filter::Attribute(path, _) = term {
                element.insert(path.name.clone(), value);
            }
        }
        Ok(element)
    }
}

/// The sub-attributes that a filter compares by `eq`.
fn names(filter: &Filter) -> Vec<&str> {
    match filter {
        Filter::And(terms) => terms.iter().flat_map(names).collect(),
        Filter::Attribute(path, Test::Compare(CompareOp::Equal, _)) => vec![&path.name],
        _ => Vec::new(),
    }
}

fn set(element: &mut Map<String, Value>, sub: Option<&Attribute>, value: &Value) {
    match (sub, value) {
        (Some(sub), value) => drop(element.insert(sub.name.to_owned(), value.clone())),
        (None, Value::Object(new)) => element.extend(new.clone()),
        (None, _) => {}
    }
}

/// An element listed by a `remove`, or a stored element, in the form in which they are compared.
struct Listed<'v> {
    of: &'static Attribute,
    element: &'v Map<String, Value>,
    value: Option<String>,
    kind: Option<String>,
}

impl<'v> Listed<'v> {
    fn new(of: &'static Attribute, element: &'v Value) -> Option<Self> {
        let element = element.as_object()?;
        let folded = |name: &str| {
            let exact = of.sub(name).is_some_and(|sub| sub.case_exact);
            let text = element.get(name).and_then(Value::as_str)?;
            Some(if exact { text.to_owned() } else { text.to_lowercase() })
        };
        Some(Self { of, element, value: folded("value"), kind: folded("type") })
    }

    /// True when the listed element means the stored one: by its value, and by its type if one is listed. Without a
    /// listed value, everything listed has to match.
    fn means(&self, there: &Self) -> bool {
        if self.of.default_sub().is_some() && self.value.is_some() {
            return self.value == there.value && (self.kind.is_none() || self.kind == there.kind);
        }
        self.element.iter().all(|(key, value)| there.element.get(key) == Some(value))
    }
}

fn add_element(elements: &mut Vec<Value>, element: Value, name: &str, work: &mut Work) -> Result<usize, ScimError> {
    let at = normalize::merge_or_push(elements, element, work)?;
    if elements.len() > normalize::MAX_ELEMENTS {
        return Err(ScimError::InvalidValue(format!(
            "`{name}` would have more than {} entries",
            normalize::MAX_ELEMENTS
        )));
    }
    if normalize::primary_at(elements, at) {
        normalize::clear_other_primaries(elements, at);
    }
    Ok(at)
}

/// True when an element still has a value after a sub-attribute was removed.
fn says_something(element: &Map<String, Value>) -> bool {
    element.keys().any(|key| !matches!(key.as_str(), "type" | "primary" | "display"))
}
