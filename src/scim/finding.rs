//! Findings: deviations from the RFCs that were accepted, and refusals, reported to the people who set up the identity provider.

use super::error::ScimError;
use super::jwt_problem::JwtProblem;
use super::schema::ResourceType;
use crate::model::Reason;

/// One kind of deviation or refusal at one place.
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
    /// An attribute that one object has twice, in different spellings, with the same value.
    AttributeRepeated,
    /// An attribute of an extension outside that extension.
    AttributeOutsideExtension,
    /// An extension that no schema describes.
    ExtensionNotDescribed,
    /// Values that do not fit the schema of an extension, in a change that takes access away.
    ExtensionKept,
    /// `"True"` or `"False"` where a boolean is expected.
    BooleanAsString,
    /// A number where a text is expected.
    NumberAsText,
    /// An object with `value` where a single value is expected.
    ValueWrapped,
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
    /// An `externalId` that another resource of the type has too.
    ExternalIdShared,
    /// A token without `notAfter`.
    TokenWithoutEnd,
    /// No `Authorization` header.
    AuthorizationMissing,
    /// An `Authorization` header of another scheme than `Bearer`, or a token without one.
    BearerMissing,
    /// A token that none of the provider's Secrets has.
    TokenNotAccepted,
    /// A token or client whose `notAfter` has passed.
    TokenExpired,
    /// An access token of an OAuth 2.0 client that has ended.
    AccessTokenEnded,
    /// A client id or secret at the token endpoint that none of the provider's Secrets has.
    ClientNotAccepted,
    /// A token of the OpenID Connect issuer that is not accepted.
    JwtNotAccepted(JwtProblem),
    /// A URL outside the provider's base URL.
    BaseUrlWrong,
    /// A URL that has the base URL's path twice.
    BaseUrlRepeated,
    /// A proxy says that the client used `http`, though the server's URL is `https`.
    PlainHttp,
    /// A path that SCIM does not have.
    EndpointUnknown,
    /// A request that was refused by 400, 405, 408, 409, 413, 415, 429, 503 or 507.
    Refused(Refusal),
}

/// The kinds of refusals of authenticated requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Refusal {
    /// 400 `invalidSyntax`
    InvalidSyntax,
    /// 400 `invalidFilter`
    InvalidFilter,
    /// 400 `invalidPath`
    InvalidPath,
    /// 400 `noTarget`
    NoTarget,
    /// 400 `invalidValue`
    InvalidValue,
    /// 400 `mutability`
    Mutability,
    /// 400 `tooMany`
    TooMany,
    /// 405
    MethodNotAllowed,
    /// 408
    RequestTimeout,
    /// 409 `uniqueness`
    Uniqueness,
    /// 413
    PayloadTooLarge,
    /// 415
    UnsupportedMediaType,
    /// 429, or 503 when it is a limit of the whole server
    TooManyRequests(Limit),
    /// 501
    NotImplemented,
    /// 507
    QuotaExceeded,
}

/// The limit that a request exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Limit {
    /// The rate of one token, which the provider sets itself.
    OwnRate,
    /// The rate of one token, by the default of the server.
    DefaultRate,
    /// Requests of one token at a time.
    TokenRequests,
    /// Requests of one provider at a time.
    ProviderRequests,
    /// Requests of all providers at a time.
    ServerRequests,
}

impl Limit {
    /// Whose limit it is, as the answer says it.
    pub(super) fn as_text(self) -> &'static str {
        match self {
            Self::OwnRate | Self::DefaultRate => "too many requests a second with this token",
            Self::TokenRequests => "too many requests at a time with this token",
            Self::ProviderRequests => "too many requests at a time of this identity provider",
            Self::ServerRequests => "too many requests at a time of all identity providers",
        }
    }

    /// The field that sets it; empty when none does.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::OwnRate => "spec.scim.requestsPerSecond",
            Self::DefaultRate | Self::TokenRequests | Self::ProviderRequests | Self::ServerRequests => "",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::OwnRate => {
                "refused by the limit of this IdentityProvider, `spec.scim.requestsPerSecond` for each token; raise it, or slow the IdP down"
            }
            Self::DefaultRate => {
                "refused by the limit of this rolecall, `--requests-per-second` for each token; set `spec.scim.requestsPerSecond` of this IdentityProvider higher, or slow the IdP down"
            }
            Self::TokenRequests => {
                "refused: this token had more requests open at a time than one token may; let the IdP send fewer in parallel"
            }
            Self::ProviderRequests => {
                "refused: this IdentityProvider had more requests open at a time than one may, all its tokens together; let the IdP send fewer in parallel"
            }
            Self::ServerRequests => {
                "refused with 503: all IdentityProviders together had more requests open than this rolecall takes; `rolecall doctor` of the others shows whose"
            }
        }
    }
}

impl Refusal {
    /// The stable word.
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidSyntax => "InvalidSyntax",
            Self::InvalidFilter => "InvalidFilter",
            Self::InvalidPath => "InvalidPath",
            Self::NoTarget => "NoTarget",
            Self::InvalidValue => "InvalidValue",
            Self::Mutability => "Mutability",
            Self::TooMany => "TooMany",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::RequestTimeout => "RequestTimeout",
            Self::Uniqueness => "Uniqueness",
            Self::PayloadTooLarge => "PayloadTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::TooManyRequests(_) => "TooManyRequests",
            Self::NotImplemented => "NotImplemented",
            Self::QuotaExceeded => Reason::QuotaExceeded.word(),
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::InvalidSyntax => "refused: the body is not JSON of the form that SCIM has; the answer says where",
            Self::InvalidFilter => "refused: the filter was not understood; correct the matching attribute at the IdP",
            Self::InvalidPath => "refused: no such attribute can be changed; correct the attribute mapping at the IdP",
            Self::NoTarget => {
                "refused: the operation says not what it changes; it needs a path, or a filter that matches"
            }
            Self::InvalidValue => {
                "refused: a value has the wrong type or is missing; correct the attribute mapping at the IdP"
            }
            Self::Mutability => "refused: only the server sets this attribute; remove it from the attribute mapping",
            Self::TooMany => {
                "refused: more work than one request may cause; send fewer operations, or a narrower filter"
            }
            Self::MethodNotAllowed => {
                "refused: the endpoint has no such method; check the kind of connector at the IdP"
            }
            Self::RequestTimeout => {
                "ended: the request was not complete in time; check the network between the IdP and here"
            }
            Self::Uniqueness => {
                "refused: the name belongs to another resource; match it by a look-up, or delete the other one"
            }
            Self::PayloadTooLarge => "refused: the body is too large; send fewer members in one request",
            Self::UnsupportedMediaType => "refused: send `application/scim+json` or `application/json`",
            Self::TooManyRequests(limit) => limit.hint(),
            Self::NotImplemented => "refused: this part of SCIM is not served here; switch it off at the IdP",
            Self::QuotaExceeded => {
                "refused: the storage of this IdentityProvider is used up; raise its quota, or assign fewer people"
            }
        }
    }
}

impl FindingCode {
    /// The stable word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::AttributeNotStored => "AttributeNotStored",
            Self::AttributeRepeated => "AttributeRepeated",
            Self::AttributeOutsideExtension => "AttributeOutsideExtension",
            Self::ExtensionNotDescribed => "ExtensionNotDescribed",
            Self::ExtensionKept => "ExtensionKept",
            Self::BooleanAsString => "BooleanAsString",
            Self::NumberAsText => "NumberAsText",
            Self::ValueWrapped => "ValueWrapped",
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
            Self::ExternalIdShared => "ExternalIdShared",
            Self::TokenWithoutEnd => "TokenWithoutEnd",
            Self::AuthorizationMissing => "AuthorizationMissing",
            Self::BearerMissing => "BearerMissing",
            Self::TokenNotAccepted => "TokenNotAccepted",
            Self::TokenExpired => Reason::TokenExpired.word(),
            Self::AccessTokenEnded => "AccessTokenEnded",
            Self::ClientNotAccepted => "ClientNotAccepted",
            Self::JwtNotAccepted(JwtProblem::IssuerUnavailable) => Reason::IssuerUnavailable.word(),
            Self::JwtNotAccepted(_) => "JwtNotAccepted",
            Self::BaseUrlWrong => "BaseUrlWrong",
            Self::BaseUrlRepeated => "BaseUrlRepeated",
            Self::PlainHttp => "PlainHttp",
            Self::EndpointUnknown => "EndpointUnknown",
            Self::Refused(refusal) => refusal.as_str(),
        }
    }

    /// The place of findings that are always about the same one; otherwise empty.
    #[must_use]
    pub(crate) fn place(self) -> &'static str {
        match self {
            Self::JwtNotAccepted(problem) => problem.place(),
            _ => "",
        }
    }

    /// The treatment by the server, and the change to make at the identity provider.
    #[must_use]
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::AttributeNotStored => {
                "ignored: no such attribute is in `/Schemas`; remove it from the attribute mapping"
            }
            Self::AttributeRepeated => "taken once, since the values are the same; send the attribute in one spelling",
            Self::AttributeOutsideExtension => {
                "taken as the attribute of the extension; send it inside the extension's URN"
            }
            Self::ExtensionNotDescribed => {
                "kept and returned as it was sent, though `/Schemas` does not describe it; it has no effect on access"
            }
            Self::ExtensionKept => "left as it was: the rest is done, but what was sent of it does not fit its schema",
            Self::BooleanAsString => "taken as a boolean; send true or false without quotation marks",
            Self::NumberAsText => "taken as its text; send a string",
            Self::ValueWrapped => "its `value` was taken; send the value itself",
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
            Self::MemberUnknown => {
                "kept, and it counts once one user, and no other, has this id or externalId; push the users first"
            }
            Self::MemberIdForeign => {
                "taken as an externalId; it counts while exactly one user has it: send the `id` of users created here"
            }
            Self::NestedGroup => {
                "its members count as members of this group, unless `spec.nestedGroups` of the IdentityProvider is Ignore, or omitted for a directory that is older than that field"
            }
            Self::ExternalIdShared => {
                "stored; another resource of this type has the same externalId, so neither is found by it alone: give each its own"
            }
            Self::TokenWithoutEnd => "accepted until it is removed; give it `notAfter`, and rotate it before then",
            Self::AuthorizationMissing => "refused: no token was sent; enter the token at the IdP",
            Self::BearerMissing => {
                "refused: the header must be `Authorization: Bearer TOKEN`; choose bearer authentication at the IdP"
            }
            Self::TokenNotAccepted => {
                "refused: the token is none of this IdentityProvider's; enter the one of its Secret, without quotes or line breaks"
            }
            Self::AccessTokenEnded => {
                "refused: the access token of an hour had ended; the IdP has to get a new one from `status.tokenEndpoint` before then"
            }
            Self::ClientNotAccepted => {
                "refused a token: the client id and secret are none of this IdentityProvider's; enter those of its Secret, without quotes or line breaks"
            }
            Self::JwtNotAccepted(problem) => problem.hint(),
            Self::TokenExpired => "refused: the token's `notAfter` has passed; enter the new one at the IdP",
            Self::BaseUrlWrong => {
                "refused: the URL is not below the base URL; enter `status.endpoint` as the base URL at the IdP"
            }
            Self::BaseUrlRepeated => {
                "refused: the URL has `/scim/v2` twice, since the IdP adds it itself; enter the base URL without it, or the other way round"
            }
            Self::PlainHttp => {
                "accepted; the token crossed the network unencrypted: enter the `https` URL at the IdP, and rotate the token"
            }
            Self::EndpointUnknown => {
                "refused: SCIM has no such path; check the base URL at the IdP against `status.endpoint`"
            }
            Self::Refused(refusal) => refusal.hint(),
        }
    }
}

impl Finding {
    /// The refusal of this deviation under `strictness: Strict`; none for what the RFCs permit.
    fn strict_refusal(&self) -> Option<ScimError> {
        type Refuse = fn(String) -> ScimError;
        let at = &self.pointer;
        let (refuse, text): (Refuse, String) = match self.code {
            FindingCode::AttributeNotStored => {
                let meant = similar(at).map(|known| format!("; did you mean `{known}`?")).unwrap_or_default();
                (ScimError::InvalidPath, format!("`/Schemas` has no attribute `{at}`{meant}"))
            }
            FindingCode::AttributeRepeated => {
                (ScimError::InvalidSyntax, format!("`{at}` is sent more than once; send it in one spelling"))
            }
            FindingCode::AttributeOutsideExtension => {
                (ScimError::InvalidPath, format!("`{at}` belongs to an extension; send it inside the extension's URN"))
            }
            FindingCode::BooleanAsString => {
                (ScimError::InvalidValue, format!("`{at}` must be true or false without quotation marks"))
            }
            FindingCode::NumberAsText => (ScimError::InvalidValue, format!("`{at}` must be a string, not a number")),
            FindingCode::ValueWrapped => (
                ScimError::InvalidValue,
                format!("`{at}` must be a single value, not an object; send the value itself"),
            ),
            FindingCode::JsonInString => {
                (ScimError::InvalidValue, format!("`{at}` is a text that contains JSON; send the JSON itself"))
            }
            FindingCode::SchemaUnknown => (
                ScimError::InvalidValue,
                format!("`{at}` is no schema of this resource; `/Schemas` lists those there are"),
            ),
            FindingCode::SchemasMissing => {
                (ScimError::InvalidSyntax, "`schemas` is missing; send the URNs of the schemas of the body".to_owned())
            }
            FindingCode::ListExpected if at == "Operations" => {
                (ScimError::InvalidSyntax, format!("`{at}` must be a list"))
            }
            FindingCode::ListExpected => (ScimError::InvalidValue, format!("`{at}` must be a list")),
            FindingCode::ListNotExpected => {
                (ScimError::InvalidValue, format!("`{at}` must be a single value, not a list"))
            }
            FindingCode::ObjectExpected => {
                (ScimError::InvalidValue, format!("`{at}` must be an object with a `value`, not a text"))
            }
            FindingCode::SeveralPrimaries => {
                (ScimError::InvalidValue, format!("`{at}` has more than one `primary: true`; mark one value"))
            }
            FindingCode::FilterValueNotQuoted => {
                (ScimError::InvalidFilter, format!("`{at}` is compared with a text that is not in quotation marks"))
            }
            FindingCode::PathEmpty => {
                (ScimError::InvalidPath, "`path` is null or empty; leave it out, or name an attribute".to_owned())
            }
            FindingCode::RemoveWithValue | FindingCode::RemoveOfNothing => (
                ScimError::InvalidValue,
                format!("`{at}`: `remove` takes no value; name each one in the path: `{at}[value eq \"ID\"]`"),
            ),
            FindingCode::MemberIdForeign => {
                (ScimError::InvalidValue, format!("`{at}` has an id that this server issued to nobody; send the `id`"))
            }
            FindingCode::ExtensionNotDescribed
            | FindingCode::ExtensionKept
            | FindingCode::MembersNotAsserted
            | FindingCode::MembersShrunk
            | FindingCode::MemberUnknown
            | FindingCode::NestedGroup
            | FindingCode::ExternalIdShared
            | FindingCode::TokenWithoutEnd
            | FindingCode::AuthorizationMissing
            | FindingCode::BearerMissing
            | FindingCode::TokenNotAccepted
            | FindingCode::TokenExpired
            | FindingCode::AccessTokenEnded
            | FindingCode::ClientNotAccepted
            | FindingCode::JwtNotAccepted(_)
            | FindingCode::BaseUrlWrong
            | FindingCode::BaseUrlRepeated
            | FindingCode::PlainHttp
            | FindingCode::EndpointUnknown
            | FindingCode::Refused(_) => return None,
        };
        Some(refuse(format!("{text} (refused by `strictness: Strict`)")))
    }

    /// The place as a JSON pointer (RFC 6901): `emails.value` is `/emails/value`. Empty for the request as a whole.
    #[must_use]
    pub(crate) fn json_pointer(&self) -> String {
        let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
        if matches!(self.code, FindingCode::ExtensionNotDescribed | FindingCode::ExtensionKept) {
            return format!("/{}", escaped(&self.pointer));
        }
        // The name of an attribute has no dot after its URN, whose version has one.
        let (urn, path) = match self.pointer.rsplit_once(':') {
            Some((urn, path)) if urn.starts_with("urn:") => (Some(urn), path),
            _ => (None, self.pointer.as_str()),
        };
        let names = urn.into_iter().chain(path.split('.').filter(|name| !name.is_empty()));
        names.map(|name| format!("/{}", escaped(name))).collect::<Vec<_>>().concat()
    }

    /// The treatment by the server, and the change to make at the identity provider.
    #[must_use]
    pub(crate) fn hint(&self) -> String {
        let known = match self.code {
            FindingCode::AttributeNotStored | FindingCode::Refused(Refusal::InvalidPath | Refusal::InvalidFilter) => {
                similar(&self.pointer)
            }
            _ => None,
        };
        match known {
            Some(known) => {
                format!("`{}` is not an attribute; did you mean `{known}`? {}", self.pointer, self.code.hint())
            }
            None => self.code.hint().to_owned(),
        }
    }
}

/// The attribute that a name which is none was probably meant to be.
fn similar(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        "email" | "mail" | "emailaddress" | "e-mail" => return Some("emails[0].value"),
        "phone" | "phonenumber" | "mobile" | "telephonenumber" => return Some("phoneNumbers[0].value"),
        "username" | "user_name" | "login" | "upn" | "userprincipalname" => return Some("userName"),
        "firstname" | "first_name" | "givenname" => return Some("name.givenName"),
        "lastname" | "last_name" | "surname" | "familyname" => return Some("name.familyName"),
        "display_name" | "fullname" | "groupname" => return Some("displayName"),
        "enabled" | "disabled" | "accountenabled" | "status" => return Some("active"),
        "external_id" | "objectid" => return Some("externalId"),
        "member" | "users" => return Some("members"),
        _ => {}
    }
    let names = ResourceType::ALL.into_iter().flat_map(ResourceType::attributes).map(|attribute| attribute.name);
    let plural = |known: &&str| known.strip_suffix('s').is_some_and(|one| one.eq_ignore_ascii_case(name));
    names.into_iter().find(plural)
}

/// Collects the findings of one request, bounded and without duplicates.
#[derive(Debug, Clone, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    strict: bool,
}

impl Findings {
    /// Largest number of findings of one request.
    pub(crate) const MAX: usize = 50;

    /// Creates an empty collection.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An empty collection of a provider with `strictness: Strict`.
    #[must_use]
    pub(crate) fn strict() -> Self {
        Self { list: Vec::new(), strict: true }
    }

    /// An empty collection that refuses deviations if this one does.
    #[must_use]
    pub(crate) fn another(&self) -> Self {
        Self { list: Vec::new(), strict: self.strict }
    }

    /// Adds the findings of a part of the request.
    pub(crate) fn extend(&mut self, other: Self) {
        for finding in other.list {
            self.note(finding.code, &finding.pointer);
        }
    }

    /// True when deviations are refused.
    #[must_use]
    pub(super) fn is_strict(&self) -> bool {
        self.strict
    }

    /// Refuses the first deviation that was noted, where `strictness` is `Strict`. Such findings are then removed: they
    /// say how something was taken that is not taken.
    ///
    /// # Errors
    /// `invalidSyntax`, `invalidFilter`, `invalidPath`, `invalidValue`.
    pub(super) fn refuse_deviations(&mut self) -> Result<(), ScimError> {
        if !self.strict {
            return Ok(());
        }
        let refusal = self.list.iter().find_map(Finding::strict_refusal);
        self.list.retain(|finding| finding.strict_refusal().is_none());
        refusal.map_or(Ok(()), Err)
    }

    /// Records a deviation at an attribute path.
    pub(crate) fn note(&mut self, code: FindingCode, pointer: &str) {
        let pointer: String = pointer.chars().take(100).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let finding = Finding { code, pointer };
        if self.list.len() < Self::MAX && !self.list.contains(&finding) {
            self.list.push(finding);
        }
    }

    /// The findings, in the order of the request.
    #[must_use]
    pub(crate) fn as_slice(&self) -> &[Finding] {
        &self.list
    }
}

impl IntoIterator for Findings {
    type Item = Finding;
    type IntoIter = std::vec::IntoIter<Finding>;
    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}
