//! The tables of RFC 7643 §4 and §8.7: what is stored, computed, or accepted and dropped (`password`).

use super::{Attribute, Kind, Mutability, Returned};

const TYPES: &[&str] = &["work", "home", "other"];

const fn text(name: &'static str, description: &'static str) -> Attribute {
    Attribute {
        name,
        kind: Kind::String,
        multi: false,
        required: false,
        case_exact: false,
        unique: false,
        mutability: Mutability::ReadWrite,
        returned: Returned::Default,
        advertised: true,
        canonical: &[],
        references: &[],
        subs: &[],
        description,
    }
}

const fn exact(name: &'static str, description: &'static str) -> Attribute {
    Attribute { case_exact: true, ..text(name, description) }
}

const fn flag(name: &'static str, description: &'static str) -> Attribute {
    Attribute { kind: Kind::Boolean, ..text(name, description) }
}

const fn reference(name: &'static str, description: &'static str, references: &'static [&'static str]) -> Attribute {
    Attribute { kind: Kind::Reference, case_exact: true, references, ..text(name, description) }
}

const fn kind_of(canonical: &'static [&'static str]) -> Attribute {
    Attribute { canonical, ..text("type", "The purpose of the value") }
}

const fn complex(name: &'static str, description: &'static str, subs: &'static [Attribute]) -> Attribute {
    Attribute { kind: Kind::Complex, subs, ..text(name, description) }
}

const fn list(name: &'static str, description: &'static str, subs: &'static [Attribute]) -> Attribute {
    Attribute { multi: true, ..complex(name, description, subs) }
}

const fn read_only(attribute: Attribute) -> Attribute {
    Attribute { mutability: Mutability::ReadOnly, ..attribute }
}

/// Computed when it is asked for.
const fn on_request(attribute: Attribute) -> Attribute {
    Attribute { returned: Returned::Request, ..read_only(attribute) }
}

const fn immutable(attribute: Attribute) -> Attribute {
    Attribute { mutability: Mutability::Immutable, ..attribute }
}

const DISPLAY: Attribute = text("display", "A human-readable name");
/// Microsoft's test of schemas refuses it in `emails` and `phoneNumbers`, so that it is accepted and not listed there.
const UNLISTED_DISPLAY: Attribute = Attribute { advertised: false, ..DISPLAY };
const PRIMARY: Attribute = flag("primary", "Whether this is the preferred value; true at most once");

/// Attributes that every resource has (RFC 7643 §3.1).
pub(super) const COMMON_ATTRIBUTES: &[Attribute] = &[
    Attribute { returned: Returned::Always, unique: true, ..read_only(exact("id", "The id that this server issued")) },
    exact("externalId", "The id that the client uses; several resources may have the same"),
    // Not listed: clients that build their models from `/Schemas` have one for it, which a listed one would replace.
    Attribute {
        advertised: false,
        ..read_only(complex(
            "meta",
            "Metadata set by the server",
            &[
                read_only(exact("resourceType", "The type of the resource")),
                read_only(Attribute { kind: Kind::DateTime, ..text("created", "Time of creation") }),
                read_only(Attribute { kind: Kind::DateTime, ..text("lastModified", "Time of the last change") }),
                read_only(reference("location", "The URL of the resource", &["uri"])),
                read_only(exact("version", "The version, as in the ETag header")),
            ],
        ))
    },
    Attribute {
        multi: true,
        returned: Returned::Always,
        advertised: false,
        ..reference("schemas", "The schemas of the resource", &["uri"])
    },
];

/// The core schema of users (RFC 7643 §4.1).
pub(crate) const USER_ATTRIBUTES: &[Attribute] = &[
    Attribute {
        required: true,
        unique: true,
        ..text("userName", "The name the user signs in with; unique without regard to case")
    },
    complex(
        "name",
        "The parts of the user's name",
        &[
            text("formatted", "The full name"),
            text("familyName", "The family name"),
            text("givenName", "The given name"),
            text("middleName", "The middle names"),
            text("honorificPrefix", "The title before the name"),
            text("honorificSuffix", "The suffix after the name"),
        ],
    ),
    text("displayName", "The name to show"),
    text("nickName", "The casual name"),
    reference("profileUrl", "A page about the user", &["external"]),
    text("title", "The title, such as Vice President"),
    text("userType", "The relation to the organization, such as Contractor"),
    text("preferredLanguage", "The preferred language, as in Accept-Language"),
    text("locale", "The locale, such as en-US"),
    text("timezone", "The time zone, such as Europe/Berlin"),
    flag("active", "Whether the user may have access; false removes all access"),
    Attribute {
        mutability: Mutability::WriteOnly,
        returned: Returned::Never,
        ..exact("password", "Accepted from clients that have to send one, and dropped: nobody signs in here")
    },
    list("emails", "E-mail addresses", &[text("value", "The address"), UNLISTED_DISPLAY, kind_of(TYPES), PRIMARY]),
    list(
        "phoneNumbers",
        "Phone numbers",
        &[
            text("value", "The number, as sent"),
            UNLISTED_DISPLAY,
            kind_of(&["work", "home", "mobile", "fax", "pager", "other"]),
            PRIMARY,
        ],
    ),
    list(
        "ims",
        "Instant messaging addresses",
        &[
            text("value", "The address"),
            DISPLAY,
            kind_of(&["aim", "gtalk", "icq", "xmpp", "msn", "skype", "qq", "yahoo"]),
            PRIMARY,
        ],
    ),
    list(
        "photos",
        "Pictures of the user",
        &[
            reference("value", "The URL of the picture", &["external"]),
            DISPLAY,
            kind_of(&["photo", "thumbnail"]),
            PRIMARY,
        ],
    ),
    list(
        "addresses",
        "Postal addresses",
        &[
            text("formatted", "The whole address"),
            text("streetAddress", "Street and number"),
            text("locality", "City"),
            text("region", "State or region"),
            text("postalCode", "Postal code"),
            text("country", "Country, as ISO 3166-1 alpha-2"),
            kind_of(TYPES),
            PRIMARY,
        ],
    ),
    on_request(list(
        "groups",
        "The groups that the user is in; changed by the `members` of groups",
        &[
            read_only(exact("value", "The group's id")),
            read_only(reference("$ref", "The URL of the group", &["Group"])),
            read_only(text("display", "The group's displayName")),
            read_only(Attribute {
                canonical: &["direct", "indirect"],
                ..text("type", "Whether the user is a member itself, or through another group")
            }),
        ],
    )),
    list(
        "entitlements",
        "Entitlements; access is not derived from them",
        &[text("value", "The entitlement"), DISPLAY, kind_of(&[]), PRIMARY],
    ),
    list(
        "roles",
        "Roles; access is not derived from them",
        &[text("value", "The role"), DISPLAY, kind_of(&[]), PRIMARY],
    ),
    list(
        "x509Certificates",
        "Certificates of the user",
        &[
            Attribute { kind: Kind::Binary, ..exact("value", "The DER-encoded certificate in base64") },
            DISPLAY,
            kind_of(&[]),
            PRIMARY,
        ],
    ),
];

/// The enterprise extension of users (RFC 7643 §4.3).
pub(crate) const ENTERPRISE_ATTRIBUTES: &[Attribute] = &[
    text("employeeNumber", "The number assigned by the organization"),
    text("costCenter", "The cost center"),
    text("organization", "The organization"),
    text("division", "The division"),
    text("department", "The department"),
    complex(
        "manager",
        "The user's manager",
        &[
            exact("value", "The manager's id, as sent"),
            reference("$ref", "The URL of the manager, as sent", &["User"]),
            on_request(text("displayName", "The manager's displayName, if the manager is a user here")),
        ],
    ),
];

/// The core schema of groups (RFC 7643 §4.2).
pub(crate) const GROUP_ATTRIBUTES: &[Attribute] = &[
    Attribute {
        required: true,
        unique: true,
        ..text("displayName", "The name of the group; unique without regard to case")
    },
    list(
        "members",
        "The direct members",
        &[
            immutable(exact("value", "The member's id")),
            immutable(reference("$ref", "The URL of the member", &["User", "Group"])),
            on_request(text("display", "The member's displayName")),
            immutable(Attribute { canonical: &["User", "Group"], ..text("type", "The type of the member") }),
        ],
    ),
];
