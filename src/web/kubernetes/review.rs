//! What is asked and what is answered, as JSON. Pure. An answer that is not exactly a permission is none.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::web::secret::Secret;

/// Who a token belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct User {
    /// Never empty.
    pub username: String,
    /// May be empty.
    pub uid: String,
    /// Groups of theirs.
    pub groups: Vec<String>,
    /// Whatever else the API server knows, for authorizers that want it.
    pub extra: serde_json::Map<String, Value>,
}

/// The question who holds this token.
pub fn token_review(token: &Secret) -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": { "token": token.expose() },
    })
}

/// The question whether this user may read this path.
pub fn access_review(user: &User, path: &str) -> Value {
    json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user.username,
            "uid": user.uid,
            "groups": user.groups,
            "extra": user.extra,
            "nonResourceAttributes": { "path": path, "verb": "get" },
        },
    })
}

#[derive(Deserialize)]
struct Answer<S> {
    kind: String,
    status: S,
}

#[derive(Deserialize)]
struct TokenStatus {
    #[serde(default)]
    authenticated: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    user: User,
}

#[derive(Deserialize)]
struct AccessStatus {
    allowed: bool,
    #[serde(default)]
    denied: bool,
}

/// Not an answer to the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonsense;

/// The user that a TokenReview's answer vouches for; `None` if it vouches for nobody.
pub fn user(answer: &[u8]) -> Result<Option<User>, Nonsense> {
    let answer: Answer<TokenStatus> = serde_json::from_slice(answer).map_err(|_| Nonsense)?;
    if answer.kind != "TokenReview" {
        return Err(Nonsense);
    }
    let status = answer.status;
    if !status.authenticated || !status.error.is_empty() {
        return Ok(None);
    }
    // Authenticated as nobody is a contradiction.
    if status.user.username.is_empty() { Err(Nonsense) } else { Ok(Some(status.user)) }
}

/// Whether a SubjectAccessReview's answer is a permission.
pub fn allows(answer: &[u8]) -> Result<bool, Nonsense> {
    let answer: Answer<AccessStatus> = serde_json::from_slice(answer).map_err(|_| Nonsense)?;
    if answer.kind != "SubjectAccessReview" {
        return Err(Nonsense);
    }
    Ok(answer.status.allowed && !answer.status.denied)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_a_named_user_is_vouched_for() {
        let good = br#"{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":"u","uid":"1",
            "groups":["g"],"extra":{"k":["v"]}},"audiences":["x"]}}"#;
        let found = user(good).unwrap().unwrap();
        assert_eq!(
            (found.username.as_str(), found.uid.as_str(), found.groups.as_slice()),
            ("u", "1", &["g".to_owned()][..])
        );
        let question = access_review(&found, "/metrics");
        assert_eq!(question["spec"]["extra"]["k"][0], "v");
        assert_eq!(question["spec"]["nonResourceAttributes"], json!({ "path": "/metrics", "verb": "get" }));
        for nobody in [
            r#"{"kind":"TokenReview","status":{"authenticated":false}}"#,
            r#"{"kind":"TokenReview","status":{}}"#,
            r#"{"kind":"TokenReview","status":{"user":{"username":"u"}}}"#,
            r#"{"kind":"TokenReview","status":{"authenticated":true,"error":"expired","user":{"username":"u"}}}"#,
        ] {
            assert_eq!(user(nobody.as_bytes()), Ok(None), "{nobody}");
        }
        for nonsense in [
            "",
            "[]",
            r#"{"kind":"TokenReview"}"#,
            r#"{"kind":"Status","status":"Failure"}"#,
            r#"{"kind":"Status","status":{"authenticated":true,"user":{"username":"u"}}}"#,
            r#"{"kind":"TokenReview","status":{"authenticated":"true","user":{"username":"u"}}}"#,
            r#"{"kind":"TokenReview","status":{"authenticated":1,"user":{"username":"u"}}}"#,
            r#"{"kind":"TokenReview","status":{"authenticated":true}}"#,
            r#"{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":""}}}"#,
            r#"{"kind":"TokenReview","status":{"authenticated":true,"user":{"username":"u"}}} x"#,
        ] {
            assert_eq!(user(nonsense.as_bytes()), Err(Nonsense), "{nonsense}");
        }
    }

    #[test]
    fn only_allowed_and_not_denied_is_a_permission() {
        let says = |status: &str| allows(format!(r#"{{"kind":"SubjectAccessReview","status":{status}}}"#).as_bytes());
        assert_eq!(says(r#"{"allowed":true}"#), Ok(true));
        assert_eq!(says(r#"{"allowed":false}"#), Ok(false));
        assert_eq!(says(r#"{"allowed":true,"denied":true}"#), Ok(false));
        for status in ["{}", "null", r#"{"allowed":"true"}"#, r#"{"allowed":null}"#] {
            assert_eq!(says(status), Err(Nonsense), "{status}");
        }
        assert_eq!(allows(br#"{"kind":"TokenReview","status":{"allowed":true}}"#), Err(Nonsense));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(user(&bytes), Err(Nonsense));
            prop_assert_eq!(allows(&bytes), Err(Nonsense));
        }
    }
}
