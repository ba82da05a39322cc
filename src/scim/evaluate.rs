//! Evaluation of filters on whole resources, for what no index of the store answers.

use jiff::Timestamp;
use serde_json::{Map, Number, Value};
use uuid::Uuid;

use super::element::{ElementFilter, compare, is_empty};
use super::error::{ScimError, shown};
use super::extension::{self, Readings};
use super::filter::{AttributePath, CompareOp, Filter, FilterValue, Test, time};
use super::schema::{Attribute, Home, Kind, Mutability, Resolved, ResourceType, Returned};
use super::text::{fold, fold_name};
use super::work::{Work, steps};

/// The rows of other resources that an evaluation needs in an attribute of the resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Related {
    /// None.
    Nothing,
    /// Those of these ids only.
    These(Vec<Uuid>),
    /// All of them.
    All,
}

impl Related {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, one) | (one, Self::Nothing) => one,
            (Self::These(mut ids), Self::These(more)) => {
                ids.extend(more);
                Self::These(ids)
            }
            _ => Self::All,
        }
    }
}

/// A [resolved](Filter::resolved) filter on whole resources, with its operands folded.
#[derive(Debug, Clone)]
pub(crate) struct Evaluator {
    root: Node,
    related: Related,
}

#[derive(Debug, Clone)]
enum Node {
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Attribute(Place, Check),
    Element(Place, ElementFilter, Option<Check>),
    /// An attribute of an extension that no schema describes.
    Extension(Readings, Test),
    /// An element of one.
    ExtensionElement(Readings, Box<Filter>, Option<(String, Test)>),
}

/// Where the values of an attribute are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    extension: Option<&'static str>,
    name: &'static str,
    sub: Option<&'static str>,
}

/// Folding of the texts of an attribute before their comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Folding {
    Exact,
    Case,
    Name,
}

impl Folding {
    pub(super) fn of(of: ResourceType, attribute: &Attribute) -> Self {
        let name = match of.home() {
            Home::Users => Some("userName"),
            Home::Groups => Some("displayName"),
            Home::Resources => None,
        };
        match attribute {
            Attribute { case_exact: true, .. } => Self::Exact,
            named if named.unique && Some(named.name) == name => Self::Name,
            _ => Self::Case,
        }
    }

    pub(super) fn apply(self, text: &str) -> String {
        match self {
            Self::Exact => text.to_owned(),
            Self::Case => fold(text),
            Self::Name => fold_name(text),
        }
    }
}

/// A test of one value.
#[derive(Debug, Clone)]
struct Check {
    folding: Folding,
    test: Operand,
}

#[derive(Debug, Clone)]
enum Operand {
    Present,
    Null(CompareOp),
    Bool(CompareOp, bool),
    Number(CompareOp, Number),
    Time(CompareOp, Timestamp),
    Text(CompareOp, String),
}

impl Place {
    pub(super) fn of(found: &Resolved) -> Self {
        Self { extension: found.extension, name: found.attribute.name, sub: found.sub.map(|sub| sub.name) }
    }

    pub(super) fn attribute<'v>(&self, resource: &'v Map<String, Value>) -> Option<&'v Value> {
        match self.extension {
            None => resource.get(self.name),
            Some(urn) => resource.get(urn)?.get(self.name),
        }
    }

    pub(super) fn inside<'v>(&self, value: Option<&'v Value>) -> Option<&'v Value> {
        match self.sub {
            None => value,
            Some(sub) => value?.get(sub),
        }
    }
}

impl Check {
    fn new(of: ResourceType, attribute: &Attribute, test: &Test) -> Option<Self> {
        let folding = Folding::of(of, attribute);
        let test = match test {
            Test::Present => Operand::Present,
            Test::Compare(op, FilterValue::Null) => Operand::Null(*op),
            Test::Compare(op, FilterValue::Bool(value)) => Operand::Bool(*op, *value),
            Test::Compare(op, FilterValue::Number(value)) => Operand::Number(*op, value.clone()),
            Test::Compare(op, FilterValue::String(wanted)) => match attribute.kind {
                Kind::DateTime if op.compares_order() => Operand::Time(*op, time(wanted)?),
                _ => Operand::Text(*op, folding.apply(wanted)),
            },
        };
        Some(Self { folding, test })
    }

    fn passes(&self, value: Option<&Value>, work: &mut Work) -> Result<bool, ScimError> {
        work.spend(1)?;
        let op = match &self.test {
            Operand::Present => return Ok(!is_empty(value)),
            Operand::Null(op) => return Ok((*op == CompareOp::Equal) == is_empty(value)),
            Operand::Bool(op, _) | Operand::Number(op, _) | Operand::Time(op, _) | Operand::Text(op, _) => *op,
        };
        let order = match (&self.test, value) {
            (Operand::Text(_, wanted), Some(Value::String(given))) => {
                work.spend(steps(given.len() + wanted.len()))?;
                return Ok(match self.folding {
                    Folding::Exact => compare(op, given, wanted),
                    folding => compare(op, &folding.apply(given), wanted),
                });
            }
            (Operand::Bool(_, wanted), Some(Value::Bool(given))) => Some(given.cmp(wanted)),
            (Operand::Number(_, wanted), Some(Value::Number(given))) => extension::numeric(given, wanted),
            (Operand::Time(_, wanted), Some(Value::String(given))) => time(given).map(|given| given.cmp(wanted)),
            _ => None,
        };
        let Some(order) = order else { return Ok(op == CompareOp::NotEqual) };
        Ok(op.holds(order))
    }
}

impl Evaluator {
    /// The filter, ready to run.
    ///
    /// # Errors
    /// `invalidFilter` for an attribute that has no values to filter on, and for a filter that is not resolved.
    pub(crate) fn new(of: ResourceType, filter: &Filter) -> Result<Self, ScimError> {
        let mut related = Related::Nothing;
        let root = node(of, filter, &mut related)?;
        Ok(Self { root, related })
    }

    /// What [`Evaluator::passes`] needs in `members` of a group or `groups` of a user.
    #[must_use]
    pub(crate) fn related(&self) -> &Related {
        &self.related
    }

    /// True when a [complete](super::complete) resource passes.
    ///
    /// # Errors
    /// `tooMany`, when the list takes too many steps.
    pub(crate) fn passes(&self, resource: &Map<String, Value>, work: &mut Work) -> Result<bool, ScimError> {
        passes(&self.root, resource, work)
    }
}

fn node(of: ResourceType, filter: &Filter, related: &mut Related) -> Result<Node, ScimError> {
    let mut all = |terms: &[Filter]| match terms {
        [] => Err(ScimError::InvalidFilter("an empty filter is not supported".into())),
        terms => terms.iter().map(|term| node(of, term, related)).collect::<Result<Vec<_>, _>>(),
    };
    match filter {
        Filter::And(terms) => Ok(Node::And(all(terms)?)),
        Filter::Or(terms) => Ok(Node::Or(all(terms)?)),
        Filter::Not(inner) => Ok(Node::Not(Box::new(node(of, inner, related)?))),
        Filter::Attribute(path, test) => {
            if let Some(readings) = unknown(of, path) {
                return Ok(Node::Extension(readings, extension::checked(test, path)?));
            }
            let found = found(of, path)?;
            if is_related(of, &found) {
                let wanted = match test {
                    Test::Compare(CompareOp::Equal, FilterValue::String(id))
                        if path.sub.as_deref() == Some("value") =>
                    {
                        Related::These(Uuid::try_parse(id).into_iter().collect())
                    }
                    _ => Related::All,
                };
                *related = std::mem::replace(related, Related::Nothing).and(wanted);
            }
            let leaf = found.sub.unwrap_or(found.attribute);
            let check = Check::new(of, leaf, test).ok_or_else(|| unsupported(path))?;
            Ok(Node::Attribute(Place::of(&found), check))
        }
        Filter::Element { path, filter, then } => {
            if let Some(readings) = unknown(of, path) {
                extension::checked_inside(filter)?;
                return Ok(Node::ExtensionElement(readings, filter.clone(), then.clone()));
            }
            let found = found(of, path)?;
            if is_related(of, &found) {
                *related = Related::All;
            }
            if !all_compared(found.attribute, filter) {
                return Err(unsupported(path));
            }
            let filter = ElementFilter::new(found.attribute, &filter.resolved_in(found.attribute)?);
            let mut place = Place::of(&found);
            let then = match then {
                None => None,
                Some((sub, test)) => {
                    let sub =
                        found.attribute.sub(sub).filter(|sub| is_compared(sub)).ok_or_else(|| unsupported(path))?;
                    place.sub = Some(sub.name);
                    Some(Check::new(of, sub, test).ok_or_else(|| unsupported(path))?)
                }
            };
            Ok(Node::Element(place, filter, then))
        }
    }
}

fn unsupported(path: &AttributePath) -> ScimError {
    ScimError::InvalidFilter(format!("a filter on `{}` is not supported here", shown(&path.to_string())))
}

/// The attribute of a path, if it has values that can be compared. What is never stored, or computed only for an answer,
/// would look as if nobody had it.
fn found(of: ResourceType, path: &AttributePath) -> Result<Resolved, ScimError> {
    of.resolve(path)
        .filter(|found| found.attribute.returned != Returned::Never && found.sub.is_none_or(is_compared))
        .ok_or_else(|| unsupported(path))
}

/// The path as one into an extension that no schema describes.
fn unknown(of: ResourceType, path: &AttributePath) -> Option<Readings> {
    if of.resolve(path).is_some() { None } else { Readings::of_filter(of, path) }
}

pub(super) fn is_compared(sub: &Attribute) -> bool {
    match sub.returned {
        Returned::Always | Returned::Default => true,
        // What is read-only and only there when it is asked for is computed for an answer.
        Returned::Request => sub.mutability != Mutability::ReadOnly,
        Returned::Never => false,
    }
}

/// Whether a filter on elements uses only what [`is_compared`].
fn all_compared(attribute: &Attribute, filter: &Filter) -> bool {
    match filter {
        Filter::And(terms) | Filter::Or(terms) => terms.iter().all(|term| all_compared(attribute, term)),
        Filter::Not(inner) => all_compared(attribute, inner),
        Filter::Attribute(path, _) => attribute.sub(&path.name).is_none_or(is_compared),
        Filter::Element { .. } => false,
    }
}

/// Whether the values of an attribute follow from the memberships of groups.
pub(super) fn is_related(of: ResourceType, found: &Resolved) -> bool {
    let name = match of.home() {
        Home::Users => "groups",
        Home::Groups => "members",
        Home::Resources => return false,
    };
    found.extension.is_none() && found.attribute.name == name
}

fn passes(node: &Node, resource: &Map<String, Value>, work: &mut Work) -> Result<bool, ScimError> {
    match node {
        Node::And(terms) => {
            for term in terms {
                if !passes(term, resource, work)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        Node::Or(terms) => {
            for term in terms {
                if passes(term, resource, work)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Node::Not(inner) => Ok(!passes(inner, resource, work)?),
        Node::Attribute(place, check) => match place.attribute(resource) {
            Some(Value::Array(list)) if !list.is_empty() => {
                for value in list {
                    if check.passes(place.inside(Some(value)), work)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Some(Value::Array(_)) => check.passes(None, work),
            value => check.passes(place.inside(value), work),
        },
        Node::Element(place, filter, then) => {
            let elements = match place.attribute(resource) {
                Some(Value::Array(list)) => list.as_slice(),
                Some(one) => std::slice::from_ref(one),
                None => &[],
            };
            for element in elements {
                let further = match then {
                    None => true,
                    Some(check) => check.passes(place.inside(Some(element)), work)?,
                };
                if further && filter.passes(element, work)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Node::Extension(readings, test) => extension::passes(readings, test, resource, work),
        Node::ExtensionElement(readings, filter, then) => {
            extension::passes_element(readings, filter, then.as_ref(), resource, work)
        }
    }
}
