//! The two questions about a token, on one connection.

use super::Decision;
use super::review::{self, Nonsense};
use crate::kubernetes::{Api, ApiError};
use crate::web::secret::Secret;

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// Asks whether whoever holds this token may read this path.
pub(super) async fn ask(api: &Api, token: &Secret, path: &str) -> Result<Decision, ApiError> {
    let mut connection = api.connect().await?;
    let nonsense = |question: &'static str| move |Nonsense| ApiError::Nonsense(question.into());
    let answer = connection.post(TOKEN_REVIEWS, &review::token_review(token)).await?;
    let Some(user) = review::user(&answer).map_err(nonsense(TOKEN_REVIEWS))? else {
        return Ok(Decision::Unauthenticated);
    };
    let answer = connection.post(ACCESS_REVIEWS, &review::access_review(&user, path)).await?;
    let allowed = review::allows(&answer).map_err(nonsense(ACCESS_REVIEWS))?;
    Ok(if allowed { Decision::Allowed } else { Decision::Forbidden })
}
