//! Changes of one resource: parsed and checked first, all of them, then applied to its JSON (RFC 7644 §3.5.2).

use serde_json::{Map, Value};

use super::error::{ScimError, shown};
use super::filter::{AttributePath, CompareOp, Filter, FilterValue, Test};
use super::finding::{FindingCode, Findings};
use super::intake;
use super::parse::{self, PatchPath};
use super::schema::{Attribute, Mutability, ResourceType};

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

/// What an edit is aimed at.
#[derive(Debug, Clone)]
enum Target {
    /// The attribute as a whole.
    Whole,
    /// One sub-attribute; of a multi-valued attribute: in every element.
    Sub(&'static Attribute),
    /// The elements that pass the filter, or one sub-attribute of theirs.
    Elements(Filter, Option<&'static Attribute>),
}

/// One change, checked against the schema, of a form that applying cannot misread.
#[derive(Debug, Clone)]
pub(super) struct Edit {
    verb: Verb,
    extension: Option<&'static str>,
    attribute: &'static Attribute,
    target: Target,
    /// In the stored form; none means "no value".
    value: Option<Value>,
    /// Whether the request had a value at all.
    given: bool,
}

/// What edits are parsed for.
pub(super) struct Context<'a> {
    pub(super) of: ResourceType,
    /// The resource's own id, in a change of one that exists.
    pub(super) id: Option<&'a str>,
    pub(super) findings: &'a mut Findings,
}

impl Context<'_> {
    /// Edits for all members of an object: the body of a POST or PUT, or the value of an operation without a path.
    /// Keys may be attributes, dotted paths, URN paths, or an extension's URN.
    pub(super) fn object(
        &mut self,
        verb: Verb,
        object: Map<String, Value>,
        edits: &mut Vec<Edit>,
    ) -> Result<(), ScimError> {
        for (key, value) in object {
            self.key(verb, &key, value, edits)?;
        }
        Ok(())
    }

    fn key(&mut self, verb: Verb, key: &str, value: Value, edits: &mut Vec<Edit>) -> Result<(), ScimError> {
        match key.to_ascii_lowercase().as_str() {
            // A password placeholder is sent by Okta with every create: it is dropped here, before anything can log it.
            "meta" | "groups" | "password" => return Ok(()),
            "schemas" => {
                self.schemas(&value);
                return Ok(());
            }
            "id" => return self.own_id(&value),
            _ => {}
        }
        if let Some((urn, _)) = self.of.extension(key) {
            if !key.eq_ignore_ascii_case(urn) {
                self.findings.note(FindingCode::SchemaUnknown, key);
            }
            return self.extension(verb, urn, value, edits);
        }
        if key.eq_ignore_ascii_case(self.of.urn()) {
            return match value {
                Value::Object(inner) => self.object(verb, inner, edits),
                Value::Null => Ok(()),
                _ => Err(ScimError::InvalidValue(format!("`{}` must be an object", self.of.urn()))),
            };
        }
        // A key that is no path at all is an attribute that is not stored.
        let Ok(path) = parse::patch_path(key, self.findings) else {
            self.findings.note(FindingCode::AttributeNotStored, key);
            return Ok(());
        };
        if value.is_null() && self.of.resolve(&path.attribute).is_none() {
            return Ok(());
        }
        edits.extend(self.path(verb, &path, Some(value))?);
        Ok(())
    }

    fn extension(
        &mut self,
        verb: Verb,
        urn: &'static str,
        value: Value,
        edits: &mut Vec<Edit>,
    ) -> Result<(), ScimError> {
        match value {
            Value::Object(inner) => {
                for (key, value) in inner {
                    match parse::patch_path(&key, self.findings) {
                        Ok(mut path) if path.attribute.schema.is_none() => {
                            path.attribute.schema = Some(urn.to_owned());
                            edits.extend(self.path(verb, &path, Some(value))?);
                        }
                        _ => self.findings.note(FindingCode::AttributeNotStored, &key),
                    }
                }
                Ok(())
            }
            Value::Null => {
                if verb == Verb::Replace {
                    edits.extend(self.clear_extension(urn));
                }
                Ok(())
            }
            _ => Err(ScimError::InvalidValue(format!("`{urn}` must be an object"))),
        }
    }

    fn clear_extension(&self, urn: &'static str) -> Vec<Edit> {
        let attributes = self.of.extension(urn).map_or(&[][..], |(_, attributes)| attributes);
        attributes
            .iter()
            .map(|attribute| Edit {
                verb: Verb::Remove,
                extension: Some(urn),
                attribute,
                target: Target::Whole,
                value: None,
                given: false,
            })
            .collect()
    }

    /// Notes URNs that mean nothing here. The endpoint decides the type.
    pub(super) fn schemas(&mut self, value: &Value) {
        for urn in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !self.of.knows_schema(urn) {
                self.findings.note(FindingCode::SchemaUnknown, urn);
            }
        }
    }

    fn own_id(&self, value: &Value) -> Result<(), ScimError> {
        match (self.id, value) {
            (Some(id), Value::String(given)) if !given.eq_ignore_ascii_case(id) => {
                Err(ScimError::Mutability("`id` is issued by this server and cannot be changed".into()))
            }
            _ => Ok(()),
        }
    }

    /// Edits for an operation with a path, `value` as it was sent.
    ///
    /// # Errors
    /// `mutability`, `invalidPath`, `invalidValue`. An attribute that is not stored gives no edit but a finding.
    pub(super) fn path(&mut self, verb: Verb, path: &PatchPath, value: Option<Value>) -> Result<Vec<Edit>, ScimError> {
        let whole = path.to_string();
        if path.filter.is_none() && self.of.extension(&whole).is_some() {
            let Some((urn, _)) = self.of.extension(&whole) else { return Ok(Vec::new()) };
            if verb == Verb::Remove {
                return Ok(self.clear_extension(urn));
            }
            let mut edits = Vec::new();
            self.extension(verb, urn, value.unwrap_or(Value::Null), &mut edits)?;
            return Ok(edits);
        }
        let Some(found) = self.of.resolve(&path.attribute) else {
            self.findings.note(FindingCode::AttributeNotStored, &path.attribute.to_string());
            return Ok(Vec::new());
        };
        let attribute = found.attribute;
        if found.extension.is_some() && path.attribute.schema.is_none() {
            self.findings.note(FindingCode::AttributeOutsideExtension, attribute.name);
        }
        if attribute.name == "id" {
            if verb == Verb::Remove {
                return Err(ScimError::Mutability("`id` cannot be removed".into()));
            }
            self.own_id(&value.unwrap_or(Value::Null))?;
            return Ok(Vec::new());
        }
        if attribute.mutability == Mutability::ReadOnly || attribute.name == "schemas" {
            return Ok(Vec::new());
        }
        let pointer = pointer(found.extension, attribute, found.sub);
        let given = value.is_some();
        if !given && verb != Verb::Remove {
            return Err(ScimError::InvalidValue(format!("`{pointer}` comes without a value")));
        }
        let value = value.unwrap_or(Value::Null);
        let (target, value) = match (&path.filter, found.sub) {
            (Some(filter), _) => {
                if !attribute.multi {
                    return Err(ScimError::InvalidPath(format!(
                        "`{pointer}` has one value, so there is nothing to filter"
                    )));
                }
                let filter =
                    filter.resolved_in(attribute).map_err(|problem| ScimError::InvalidPath(problem.to_string()))?;
                match &path.sub {
                    None => {
                        let value = intake::element(attribute, value, &pointer, self.findings)?;
                        (Target::Elements(filter, None), value)
                    }
                    Some(name) => {
                        let Some(sub) = attribute.sub(name) else {
                            self.findings.note(FindingCode::AttributeNotStored, &format!("{pointer}.{name}"));
                            return Ok(Vec::new());
                        };
                        let value = intake::simple(sub, value, &format!("{pointer}.{}", sub.name), self.findings)?;
                        (Target::Elements(filter, Some(sub)), value)
                    }
                }
            }
            (None, Some(sub)) => (Target::Sub(sub), intake::simple(sub, value, &pointer, self.findings)?),
            (None, None) => (Target::Whole, intake::attribute(attribute, value, &pointer, self.findings)?),
        };
        Ok(vec![Edit { verb, extension: found.extension, attribute, target, value, given }])
    }
}

fn pointer(extension: Option<&str>, attribute: &Attribute, sub: Option<&Attribute>) -> String {
    AttributePath {
        schema: extension.map(str::to_owned),
        name: attribute.name.to_owned(),
        sub: sub.map(|sub| sub.name.to_owned()),
    }
    .to_string()
}

impl Edit {
    /// Applies the change. The resource is in the stored form before and after.
    ///
    /// # Errors
    /// `invalidValue` for clearing what is required, `noTarget` for an element that is not there and cannot be made.
    pub(super) fn apply(&self, resource: &mut Map<String, Value>) -> Result<(), ScimError> {
        let home = match self.extension {
            None => resource,
            Some(urn) => match resource.entry(urn).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(home) => home,
                _ => return Err(ScimError::Internal),
            },
        };
        match &self.target {
            Target::Whole => self.whole(home),
            Target::Sub(sub) if self.attribute.multi => self.elements(home, None, Some(sub)),
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
            Target::Elements(filter, sub) => self.elements(home, Some(filter), *sub),
        }
    }

    /// Whether this takes the value away: `remove`, or `replace` with nothing. `add` of nothing changes nothing.
    fn unsets(&self) -> bool {
        match self.verb {
            Verb::Remove => true,
            Verb::Replace => self.value.is_none(),
            Verb::Add => false,
        }
    }

    fn whole(&self, home: &mut Map<String, Value>) -> Result<(), ScimError> {
        let name = self.attribute.name;
        if self.verb == Verb::Remove && self.attribute.multi && self.given {
            self.remove_listed(home);
            return Ok(());
        }
        if self.unsets() {
            if self.attribute.required {
                return Err(ScimError::InvalidValue(format!("`{name}` is required and cannot be removed")));
            }
            home.shift_remove(name);
            return Ok(());
        }
        let Some(value) = &self.value else { return Ok(()) };
        match (home.get_mut(name), value) {
            (Some(Value::Array(there)), Value::Array(new)) if self.verb == Verb::Add => {
                for element in new {
                    add_element(there, element.clone(), name)?;
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

    /// `remove` with a list of values takes away these, and only these.
    fn remove_listed(&self, home: &mut Map<String, Value>) {
        let Some(Value::Array(listed)) = &self.value else { return };
        let Some(Value::Array(there)) = home.get_mut(self.attribute.name) else { return };
        there.retain(|element| {
            !listed.iter().any(|listed| {
                listed
                    .as_object()
                    .is_some_and(|listed| listed.iter().all(|(key, value)| element.get(key) == Some(value)))
            })
        });
        if there.is_empty() {
            home.shift_remove(self.attribute.name);
        }
    }

    fn elements(
        &self,
        home: &mut Map<String, Value>,
        filter: Option<&Filter>,
        sub: Option<&'static Attribute>,
    ) -> Result<(), ScimError> {
        let name = self.attribute.name;
        let mut elements = match home.shift_remove(name) {
            Some(Value::Array(elements)) => elements,
            _ => Vec::new(),
        };
        let passes = |element: &Value| filter.is_none_or(|filter| filter.matches_element(self.attribute, element));
        if self.unsets() {
            elements.retain_mut(|element| {
                if !passes(element) {
                    return true;
                }
                let (Some(sub), Value::Object(map)) = (sub, element) else { return false };
                map.shift_remove(sub.name);
                says_something(map)
            });
        } else if let Some(value) = &self.value {
            let matched: Vec<usize> = (0..elements.len()).filter(|&index| passes(&elements[index])).collect();
            let touched = if matched.is_empty() {
                let mut new = match filter {
                    Some(filter) => self.new_element(filter)?,
                    None => Map::new(),
                };
                set(&mut new, sub, value);
                vec![add_element(&mut elements, Value::Object(new), name)?]
            } else {
                for &index in &matched {
                    if let Some(Value::Object(element)) = elements.get_mut(index) {
                        set(element, sub, value);
                    }
                }
                matched
            };
            if let Some(&winner) = touched.iter().find(|&&index| intake::primary_at(&elements, index)) {
                intake::clear_other_primaries(&mut elements, winner);
            }
        }
        if !elements.is_empty() {
            home.insert(name.to_owned(), Value::Array(elements));
        }
        Ok(())
    }

    /// What an element must be to pass the filter, where the filter says so by `eq` alone.
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
                        "no element of `{}` passes `{}`, and it does not say what a new one would be",
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

fn set(element: &mut Map<String, Value>, sub: Option<&Attribute>, value: &Value) {
    match (sub, value) {
        (Some(sub), value) => drop(element.insert(sub.name.to_owned(), value.clone())),
        (None, Value::Object(new)) => element.extend(new.clone()),
        (None, _) => {}
    }
}

fn add_element(elements: &mut Vec<Value>, element: Value, name: &str) -> Result<usize, ScimError> {
    let at = intake::merge_or_push(elements, element);
    if elements.len() > intake::MAX_ELEMENTS {
        return Err(ScimError::InvalidValue(format!("`{name}` would have more than {} entries", intake::MAX_ELEMENTS)));
    }
    if intake::primary_at(elements, at) {
        intake::clear_other_primaries(elements, at);
    }
    Ok(at)
}

/// Whether an element still says anything once a sub-attribute of it is gone.
fn says_something(element: &Map<String, Value>) -> bool {
    element.keys().any(|key| !matches!(key.as_str(), "type" | "primary" | "display"))
}

/// Applies all edits, or answers the first refusal.
pub(super) fn apply(
    of: ResourceType,
    edits: &[(Option<usize>, Edit)],
    mut resource: Map<String, Value>,
) -> Result<Value, ScimError> {
    for (operation, edit) in edits {
        edit.apply(&mut resource).map_err(|problem| match operation {
            Some(index) => problem.in_operation(*index),
            None => problem,
        })?;
    }
    for required in of.attributes().iter().filter(|attribute| attribute.required) {
        if !resource.contains_key(required.name) {
            return Err(ScimError::InvalidValue(format!("`{}` is required", required.name)));
        }
    }
    let mut schemas = vec![Value::String(of.urn().to_owned())];
    for (urn, _) in of.extensions() {
        if resource.get(*urn).is_some_and(|extension| extension.as_object().is_some_and(Map::is_empty)) {
            resource.shift_remove(*urn);
        }
        if resource.contains_key(*urn) {
            schemas.push(Value::String((*urn).to_owned()));
        }
    }
    let mut result = Map::new();
    result.insert("schemas".to_owned(), Value::Array(schemas));
    resource.shift_remove("schemas");
    result.append(&mut resource);
    Ok(Value::Object(result))
}
