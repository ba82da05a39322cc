//! Filters on the elements of one attribute, made ready to be run on many: what they compare with is folded once, and so
//! is each value of an element, however many terms ask for it.

use serde_json::Value;

use super::error::ScimError;
use super::filter::{CompareOp, Filter, FilterValue, Test, compare, is_empty};
use super::schema::Attribute;
use super::work::{Work, steps};

/// A [resolved](Filter::resolved_in) filter on the elements of an attribute.
#[derive(Debug, Clone)]
pub(super) struct ElementFilter {
    attribute: &'static Attribute,
    node: Node,
}

#[derive(Debug, Clone)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// A test of the sub-attribute at this position.
    Sub(usize, Check),
    Never,
}

#[derive(Debug, Clone)]
enum Check {
    Present,
    /// Whether it has no value is this.
    Empty(bool),
    Bool(CompareOp, bool),
    /// Folded, unless the sub-attribute is case-exact.
    Text(CompareOp, String),
    Never,
}

/// An element under test, with the values that were folded for earlier terms.
struct Subject<'v> {
    element: &'v Value,
    folded: Vec<Option<String>>,
}

impl ElementFilter {
    pub(super) fn new(attribute: &'static Attribute, filter: &Filter) -> Self {
        Self { attribute, node: node(attribute, filter) }
    }

    /// Whether an element passes.
    ///
    /// # Errors
    /// `tooMany` when the request has taken all the steps that it may.
    pub(super) fn passes(&self, element: &Value, work: &mut Work) -> Result<bool, ScimError> {
        let mut subject = Subject { element, folded: vec![None; self.attribute.subs.len()] };
        self.node.passes(self.attribute, &mut subject, work)
    }
}

fn node(attribute: &'static Attribute, filter: &Filter) -> Node {
    let all = |terms: &[Filter]| terms.iter().map(|term| node(attribute, term)).collect();
    match filter {
        Filter::And(terms) => Node::All(all(terms)),
        Filter::Or(terms) => Node::Any(all(terms)),
        Filter::Not(inner) => Node::Not(Box::new(node(attribute, inner))),
        Filter::Element { .. } => Node::Never,
        Filter::Attribute(path, test) => {
            let sub = attribute.subs.iter().enumerate().find(|(_, sub)| sub.name.eq_ignore_ascii_case(&path.name));
            sub.map_or(Node::Never, |(at, sub)| Node::Sub(at, check(sub, test)))
        }
    }
}

fn check(sub: &Attribute, test: &Test) -> Check {
    match test {
        Test::Present => Check::Present,
        Test::Compare(op, FilterValue::Null) => Check::Empty(*op == CompareOp::Equal),
        Test::Compare(op, FilterValue::Bool(wanted)) => Check::Bool(*op, *wanted),
        Test::Compare(op, FilterValue::String(wanted)) => {
            Check::Text(*op, if sub.case_exact { wanted.clone() } else { wanted.to_lowercase() })
        }
        Test::Compare(_, FilterValue::Number(_)) => Check::Never,
    }
}

impl Node {
    fn passes(
        &self,
        attribute: &'static Attribute,
        subject: &mut Subject<'_>,
        work: &mut Work,
    ) -> Result<bool, ScimError> {
        match self {
            Self::All(terms) => {
                for term in terms {
                    if !term.passes(attribute, subject, work)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Any(terms) => {
                for term in terms {
                    if term.passes(attribute, subject, work)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Not(inner) => Ok(!inner.passes(attribute, subject, work)?),
            Self::Sub(at, check) => subject.passes(attribute, *at, check, work),
            Self::Never => Ok(false),
        }
    }
}

impl Subject<'_> {
    fn passes(
        &mut self,
        attribute: &'static Attribute,
        at: usize,
        check: &Check,
        work: &mut Work,
    ) -> Result<bool, ScimError> {
        work.spend(1)?;
        let Some(sub) = attribute.subs.get(at) else { return Ok(false) };
        let value = self.element.get(sub.name);
        Ok(match check {
            Check::Present => !is_empty(value),
            Check::Empty(wanted) => is_empty(value) == *wanted,
            Check::Bool(op, wanted) => match (op, value.and_then(Value::as_bool)) {
                (CompareOp::Equal, Some(value)) => value == *wanted,
                (CompareOp::NotEqual, Some(value)) => value != *wanted,
                (CompareOp::NotEqual, None) => true,
                _ => false,
            },
            Check::Never => false,
            Check::Text(op, wanted) => match value {
                Some(Value::String(given)) => {
                    work.spend(steps(given.len() + wanted.len()))?;
                    if sub.case_exact {
                        compare(*op, given, wanted)
                    } else {
                        let Some(slot) = self.folded.get_mut(at) else { return Ok(false) };
                        if slot.is_none() {
                            work.spend(steps(given.len()))?;
                        }
                        compare(*op, slot.get_or_insert_with(|| given.to_lowercase()), wanted)
                    }
                }
                _ => *op == CompareOp::NotEqual,
            },
        })
    }
}
