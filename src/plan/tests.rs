mod changes;
mod claims;
mod ends;
mod enforcement;
mod outcomes;
mod resources;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use uuid::Uuid;

use super::fixtures::*;
use super::*;
use crate::model::{
    AuditOutcome, Claim, ClaimTerms, Enforcement, FreezeReason, GrantState, Ground, GroupId, Intent, Keep, KeptGroups,
};
