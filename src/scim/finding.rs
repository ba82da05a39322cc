//! Findings: deviations from the RFCs that were accepted, reported to the people who set up the identity provider.

/// One accepted deviation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The kind of deviation.
    pub(crate) code: FindingCode,
    /// The attribute path, never a value. At most 100 characters.
    pub(crate) pointer: String,
}

/// The kinds of deviations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum FindingCode {
    /// An attribute that is not stored.
    AttributeNotStored,
    /// An attribute of an extension outside that extension.
    AttributeOutsideExtension,
    /// `"True"` or `"False"` where a boolean is expected.
    BooleanAsString,
    /// A JSON document inside a string.
    JsonInString,
    /// An unknown schema URN, or one of SCIM 1.x.
    SchemaUnknown,
    /// `schemas` is missing.
    SchemasMissing,
    /// One value where a list is expected.
    ListExpected,
    /// A list where one value is expected.
    ListNotExpected,
    /// A bare string where an object is expected.
    ObjectExpected,
    /// Several `primary: true` in one attribute.
    SeveralPrimaries,
    /// A filter value without quotation marks.
    FilterValueNotQuoted,
    /// `path` is null or empty.
    PathEmpty,
    /// Members to remove are listed in `value`, which RFC 7644 does not define.
    RemoveWithValue,
    /// `remove members` with an empty value.
    RemoveOfNothing,
    /// A PUT of a group that does not mention `members`.
    MembersNotAsserted,
    /// `replace members` or a PUT made the group smaller.
    MembersShrunk,
    /// A member id that this server did not issue in this tenant.
    MemberUnknown,
    /// A member id in a form that this server never issues.
    MemberIdForeign,
    /// A member that is a group.
    NestedGroup,
}

impl FindingCode {
    /// The stable word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AttributeNotStored => "AttributeNotStored",
            Self::AttributeOutsideExtension => "AttributeOutsideExtension",
            Self::BooleanAsString => "BooleanAsString",
            Self::JsonInString => "JsonInString",
            Self::SchemaUnknown => "SchemaUnknown",
            Self::SchemasMissing => "SchemasMissing",
            Self::ListExpected => "ListExpected",
            Self::ListNotExpected => "ListNotExpected",
            Self::ObjectExpected => "ObjectExpected",
            Self::SeveralPrimaries => "SeveralPrimaries",
            Self::FilterValueNotQuoted => "FilterValueNotQuoted",
            Self::PathEmpty => "PathEmpty",
            Self::RemoveWithValue => "RemoveWithValue",
            Self::RemoveOfNothing => "RemoveOfNothing",
            Self::MembersNotAsserted => "MembersNotAsserted",
            Self::MembersShrunk => "MembersShrunk",
            Self::MemberUnknown => "MemberUnknown",
            Self::MemberIdForeign => "MemberIdForeign",
            Self::NestedGroup => "NestedGroup",
        }
    }

    /// How the server treated it, and what to change at the identity provider.
    #[must_use]
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::AttributeNotStored => {
                "ignored: no such attribute is in `/Schemas`; remove it from the attribute mapping"
            }
            Self::AttributeOutsideExtension => {
                "taken as the attribute of the extension; send it inside the extension's URN"
            }
            Self::BooleanAsString => "taken as a boolean; send true or false without quotation marks",
            Self::JsonInString => "parsed; send the object itself instead of a string that contains it",
            Self::SchemaUnknown => "ignored, the endpoint decides the type; send the SCIM 2.0 URNs of `/Schemas`",
            Self::SchemasMissing => "accepted, the endpoint decides the type; send `schemas`",
            Self::ListExpected => "taken as a list of one; send a list",
            Self::ListNotExpected => "the only entry was taken; send one value instead of a list",
            Self::ObjectExpected => "taken as `value`; send an object",
            Self::SeveralPrimaries => "the first is primary, the others are not; mark one",
            Self::FilterValueNotQuoted => "taken as a string; put filter values into quotation marks",
            Self::PathEmpty => "taken as an operation without a path; leave `path` out",
            Self::RemoveWithValue => "only the listed values were removed; send `members[value eq \"id\"]` as the path",
            Self::RemoveOfNothing => "nothing was removed, because no value is listed",
            Self::MembersNotAsserted => {
                "the members were kept, because `members` was not sent; send an empty list to remove all"
            }
            Self::MembersShrunk => "the group has fewer members than before, because the whole list was sent",
            Self::MemberUnknown => "kept, and it counts once a user with this id exists; push the users first",
            Self::MemberIdForeign => {
                "kept, but it never counts: this server issues no such id; send the `id` of users created here"
            }
            Self::NestedGroup => "kept, but members of the nested group get no access through it; assign them directly",
        }
    }
}

/// Collects the findings of one request, bounded and without duplicates.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    /// Largest number of findings of one request.
    pub(crate) const MAX: usize = 50;

    /// Creates an empty collection.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Records a deviation at an attribute path.
    pub(crate) fn note(&mut self, code: FindingCode, pointer: &str) {
        let pointer: String = pointer.chars().take(100).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let finding = Finding { code, pointer };
        if self.0.len() < Self::MAX && !self.0.contains(&finding) {
            self.0.push(finding);
        }
    }

    /// The findings, in the order of the request.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn as_slice(&self) -> &[Finding] {
        &self.0
    }
}

impl IntoIterator for Findings {
    type Item = Finding;
    type IntoIter = std::vec::IntoIter<Finding>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
