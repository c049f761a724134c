//! The SageMaker contract over HTTP.
