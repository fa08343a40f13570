//! The decision about one request.

use std::sync::Arc;

use super::Web;
use super::credentials::Credentials;
use super::kubernetes::Decision;

/// All that anybody may read: the kubelet's probes have no credentials. Compared to the letter with the path as it was
/// sent, so that no way of writing another path leads here.
pub const HEALTH_PATHS: [&str; 3] = ["/livez", "/readyz", "/healthz"];

/// The permission for every path of metrics: the one that Prometheus' usual roles grant.
const METRICS: &str = "/metrics";

/// A request, as far as it matters here.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The path as it was sent.
    pub path: &'a str,
    /// Who asks.
    pub credentials: Credentials,
}

/// Why a request gets no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// More requests than the limit.
    TooMany,
    /// No credentials, or wrong ones. With the schemes that could help.
    Unauthenticated(Vec<&'static str>),
    /// Known, and not allowed.
    Forbidden,
    /// Whether they are right cannot be found out now.
    Unavailable(&'static str),
}

/// What is answered in any case.
#[derive(Debug)]
pub struct Admission {
    /// Headers that every response carries.
    pub headers: Vec<(&'static str, String)>,
    /// `Err` for a request that is not answered otherwise.
    pub verdict: Result<(), Refused>,
}

impl Web {
    /// Decides about a request.
    pub async fn admit(self: &Arc<Self>, asked: Asked<'_>) -> Admission {
        self.refresh().await;
        let policy = self.current();
        let headers = policy.headers.clone();
        if HEALTH_PATHS.contains(&asked.path) {
            return Admission { headers, verdict: Ok(()) };
        }
        if !policy.within_rate() {
            return Admission { headers, verdict: Err(Refused::TooMany) };
        }
        let verdict = match (&policy.users, &self.reviewer, &asked.credentials) {
            (None, None, _) => Ok(()),
            (Some(users), _, Credentials::Basic { user, password }) => {
                match users.admits(user, password, &self.verifier).await {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(self.unauthenticated()),
                    Err(super::password::Busy) => Err(Refused::Unavailable("too many passwords to verify")),
                }
            }
            (_, Some(reviewer), Credentials::Bearer(token)) => {
                match reviewer.decide(token, permission(asked.path)).await {
                    Decision::Allowed => Ok(()),
                    Decision::Forbidden => Err(Refused::Forbidden),
                    Decision::Unauthenticated => Err(self.unauthenticated()),
                    Decision::Unknown => Err(Refused::Unavailable("the API server cannot be asked")),
                }
            }
            _ => Err(self.unauthenticated()),
        };
        Admission { headers, verdict }
    }

    fn unauthenticated(&self) -> Refused {
        let mut schemes = Vec::new();
        if self.current().users.is_some() {
            schemes.push("Basic realm=\"kata-pulse\", charset=\"UTF-8\"");
        }
        if self.reviewer.is_some() {
            schemes.push("Bearer");
        }
        Refused::Unauthenticated(schemes)
    }
}

/// The non-resource URL that must be granted. Another way of writing a path is another permission, which nobody has
/// who was not given all of them.
fn permission(path: &str) -> &str {
    if path.starts_with("/metrics/") { METRICS } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(path: &str) -> Asked<'_> {
        Asked { path, credentials: Credentials::None }
    }

    #[test]
    fn one_permission_opens_all_metrics_and_nothing_else() {
        for path in ["/metrics", "/metrics/cadvisor", "/metrics/kata", "/metrics/resource"] {
            assert_eq!(permission(path), "/metrics");
        }
        for path in [
            "/",
            "/sandboxes",
            "/stats/summary",
            "/metricsx",
            "//metrics",
            "/metrics%2Fkata",
            "/Metrics",
            "/%6Detrics",
            "*",
            "",
        ] {
            assert_eq!(permission(path), path);
        }
    }

    #[tokio::test]
    async fn only_health_paths_to_the_letter_need_no_credentials() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("web.yaml");
        std::fs::write(&file, format!("basic_auth_users: {{a: '{}'}}\n", bcrypt::hash("x", 4).unwrap())).unwrap();
        let telemetry = Arc::new(crate::telemetry::Telemetry::new().unwrap());
        let options = super::super::Options { file: Some(file), ..Default::default() };
        let web = Arc::new(Web::open(options, telemetry).unwrap());
        for path in HEALTH_PATHS {
            assert_eq!(web.admit(asked(path)).await.verdict, Ok(()), "{path}");
        }
        for path in [
            "/",
            "",
            "*",
            "/metrics",
            "//livez",
            "/livez/",
            "/livez/../metrics",
            "/./livez",
            "/metrics/../livez",
            "/LIVEZ",
            "/%6Civez",
            "/livez%2F..%2Fmetrics",
            "/livez;x",
            "livez",
            "/livez\0",
        ] {
            let verdict = web.admit(asked(path)).await.verdict;
            assert!(matches!(verdict, Err(Refused::Unauthenticated(_))), "{path:?}: {verdict:?}");
        }
    }
}
