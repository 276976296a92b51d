//! Strict query parsing: unknown or repeated parameters are errors, not ignored.

use std::time::Duration;

use axum::http::Uri;

use super::problem::ApiProblem;
use crate::config::duration;

/// Query parameters by name. An empty value counts as not given.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the query of `uri`. Each parameter must be one of `known` and occur at most once.
    pub(super) fn of(uri: &Uri, known: &[&str]) -> Result<Self, ApiProblem> {
        if uri.query().is_none() {
            return Ok(Self(Vec::new()));
        }
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        let pairs = pairs.map_err(|_| ApiProblem::bad_request("the query is malformed"))?.0;
        for (index, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(ApiProblem::bad_request(format!("the query may have: {}", known.join(", "))));
            }
            if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(ApiProblem::bad_request(format!("{name} is given twice")));
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let named = self.0.iter().find(|(given, _)| given == name);
        named.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, ApiProblem> {
        let wrong = |_| ApiProblem::bad_request(format!("{name} is a whole number"));
        self.text(name).map(|text| text.parse().map_err(wrong)).transpose()
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiProblem> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiProblem::bad_request(format!("{name} is true or false"))),
        }
    }

    pub(super) fn duration(&self, name: &str, max: Duration) -> Result<Option<Duration>, ApiProblem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let fits = duration::parse(text).ok().filter(|given| *given <= max);
        let wrong = || format!("{name} is a duration like 500ms or 30s, at most {}", duration::show(max));
        fits.map(Some).ok_or_else(|| ApiProblem::bad_request(wrong()))
    }
}
