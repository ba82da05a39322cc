//! The permissions that the credentials hold: `testIamPermissions` of Resource Manager and of Cloud Run. Neither needs a
//! permission itself, and neither reveals whether a resource exists.

use std::collections::BTreeSet;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::client::{Operation, post};
use super::{CloudRun, GoogleError};
use crate::model::DocumentKey;

#[derive(Serialize)]
struct Asked<'a> {
    permissions: &'a BTreeSet<&'static str>,
}

#[derive(Deserialize)]
struct Held {
    #[serde(default)]
    permissions: Vec<String>,
}

impl CloudRun {
    /// Those of the asked permissions that are held on the project, also through folders and the organization.
    ///
    /// # Errors
    /// [`GoogleError`].
    pub(crate) async fn held_in_project(
        &self,
        project: &str,
        asked: &BTreeSet<&'static str>,
    ) -> Result<BTreeSet<&'static str>, GoogleError> {
        let path = format!("v3/projects/{project}:testIamPermissions");
        self.held(Self::url_below(self.endpoint().resource_manager(), &path)?, asked).await
    }

    /// Those of the asked permissions that are held on the resource of a document.
    ///
    /// # Errors
    /// [`GoogleError`].
    pub(crate) async fn held_on(
        &self,
        document: &DocumentKey,
        asked: &BTreeSet<&'static str>,
    ) -> Result<BTreeSet<&'static str>, GoogleError> {
        let path = format!("v2/{}:testIamPermissions", document.resource());
        self.held(Self::url_below(self.endpoint().cloud_run(), &path)?, asked).await
    }

    async fn held(&self, url: Url, asked: &BTreeSet<&'static str>) -> Result<BTreeSet<&'static str>, GoogleError> {
        let mut request = post(url, &Asked { permissions: asked })?;
        *request.timeout_mut() = Some(self.read_timeout());
        let held: Held = self.call(Operation::TestPermissions, request).await?;
        Ok(asked.iter().copied().filter(|name| held.permissions.iter().any(|given| given == name)).collect())
    }
}
