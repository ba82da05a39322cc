//! Why a signed token of an OpenID Connect issuer is not accepted, for the findings.

/// Why a signed token of an OpenID Connect issuer is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum JwtProblem {
    /// It is too long, or not a signed token of the form that is read.
    Malformed,
    /// The algorithm is neither RS256 nor ES256.
    Algorithm,
    /// `iss`
    Issuer,
    /// `aud`
    Audience,
    /// `sub`
    Subject,
    /// `exp` is missing or has passed.
    Expiry,
    /// It is valid for too long.
    Lifetime,
    /// `nbf` or `iat`
    NotYetValid,
    /// The issuer has no key with this `kid`.
    Key,
    /// The signature is wrong.
    Signature,
    /// The keys of the issuer cannot be read.
    IssuerUnavailable,
}

impl JwtProblem {
    /// The part of the token that it is about.
    pub(super) fn place(self) -> &'static str {
        match self {
            Self::Malformed | Self::IssuerUnavailable => "",
            Self::Algorithm => "alg",
            Self::Issuer => "iss",
            Self::Audience => "aud",
            Self::Subject => "sub",
            Self::Expiry | Self::Lifetime => "exp",
            Self::NotYetValid => "nbf",
            Self::Key => "kid",
            Self::Signature => "signature",
        }
    }

    pub(super) fn hint(self) -> &'static str {
        match self {
            Self::Malformed => "refused: the token is not a signed JWT of the usual form",
            Self::Algorithm => "refused: the issuer must sign with RS256 or ES256; change the algorithm there",
            Self::Issuer => "refused: `iss` is not `spec.scim.oidc.issuer`; both must be equal byte for byte",
            Self::Audience => "refused: `aud` does not name `spec.scim.oidc.audience`; correct one of the two",
            Self::Subject => {
                "refused: `sub` is none of `spec.scim.oidc.subjects`; add it if it is the IdP's own client"
            }
            Self::Expiry => {
                "refused: `exp` is missing or has passed; check the clocks, and that the IdP renews its token"
            }
            Self::Lifetime => "refused: the token is valid for more than 24 hours; shorten it at the issuer",
            Self::NotYetValid => "refused: the token is not valid yet; check the clocks",
            Self::Key => {
                "refused: the issuer publishes no key with this `kid`; its keys are read at most once a minute"
            }
            Self::Signature => "refused: the token was not signed by the issuer's key",
            Self::IssuerUnavailable => {
                "answered with 503: the keys of `spec.scim.oidc.issuer` cannot be read; the log has the cause"
            }
        }
    }
}
