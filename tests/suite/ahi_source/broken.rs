//! Transfers that break or stall, and how requests recover.

use super::*;

/// All 40 frames arrive, and quickly, although the first one stalls.
#[tokio::test]
async fn a_stalled_frame_gets_a_second_request_beside_it() {
    let long = Duration::from_secs(60);
    for failure in [Failure::Delay(long), Failure::Stall(long)] {
        let (fake, client) = start(40, AhiSettings { max_in_flight: 4, ..quick() }).await;
        let source = source(&client);
        let series = source.series().await.unwrap();
        *fake.frame_delay.lock().unwrap() = Duration::from_millis(5);
        fake.fail([failure]);
        let started = Instant::now();
        assert_eq!(all_frames(&source, &series).await.unwrap().len(), 40);
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        let stats = client.stats().operation(Operation::GetImageFrame);
        assert!(stats.hedges >= 1 && stats.hedges <= 8, "{stats:?}");
        assert_eq!((stats.calls, stats.retries), (40, 0));
        // Late responses are dropped.
        cancelled(&fake, &client).await;
    }
}

#[tokio::test]
async fn a_stalled_answer_about_the_image_set_costs_a_second() {
    let (fake, client) = start(1, quick()).await;
    fake.fail([Failure::Delay(Duration::from_secs(60)), Failure::Stall(Duration::from_secs(60))]);
    let started = Instant::now();
    source(&client).series().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

/// A service that is uniformly slow does not receive twice as many requests.
#[tokio::test]
async fn hedges_are_bounded() {
    let (fake, client) = start(30, quick()).await;
    let source = source(&client);
    let series = source.series().await.unwrap();
    *fake.frame_delay.lock().unwrap() = Duration::from_millis(2600);
    assert_eq!(all_frames(&source, &series).await.unwrap().len(), 30);
    let stats = client.stats().operation(Operation::GetImageFrame);
    assert!(stats.hedges <= 4 + 3 + 1, "{stats:?}");
}

#[tokio::test]
async fn answers_that_break_on_their_way_are_asked_for_again() {
    let length = fake::metadata(1).to_string().len();
    // Corrupts a letter of the state, a letter of an identifier, the first brace, or the metadata's gzip stream.
    let image_set = json!({
        "datastoreId": DATASTORE, "imageSetId": IMAGE_SET, "versionId": "7",
        "imageSetState": "ACTIVE", "imageSetWorkflowStatus": "CREATED", "isPrimary": true,
    })
    .to_string();
    let at = |what: &str| image_set.find(what).unwrap();
    for flips in [
        vec![Failure::Flip(8 * at("ACTIVE"))],
        vec![Failure::Flip(8 * at("abcdef"))],
        vec![Failure::Flip(8 * at("{"))],
        vec![Failure::Delay(Duration::ZERO), Failure::Flip(8 * 200)],
        vec![Failure::Delay(Duration::ZERO), Failure::Flip(0)],
        vec![Failure::Delay(Duration::ZERO), Failure::Truncate],
    ] {
        let (fake, client) = start(1, quick()).await;
        *fake.image_set.lock().unwrap() = serde_json::from_str(&image_set).unwrap();
        fake.fail(flips.iter().copied());
        source(&client).series().await.unwrap();
        let retries = |o| client.stats().operation(o).retries;
        let all = retries(Operation::GetImageSet) + retries(Operation::GetImageSetMetadata);
        assert_eq!(all, 1, "{length}");
    }
}

#[tokio::test]
async fn a_frame_is_fetched_once_more_and_counted() {
    let (_fake, client) = start(3, quick()).await;
    let source = source(&client);
    let series = source.series().await.unwrap();
    let key = FrameKey { instance: 1, frame: 0 };
    let frame = source.frame_again(&series, key).await.unwrap().unwrap();
    assert_eq!((frame.key, frame.data.to_vec()), (key, frame_bytes(&frame_id(1))));
    assert_eq!(client.stats().operation(Operation::GetImageFrame).refetches, 1);
}

/// 512 × 512 pixels of 16 bits need at most 1 MiB plus headers.
#[tokio::test]
async fn a_frame_longer_than_its_pixels_need_is_a_broken_one() {
    let (fake, client) = start(1, quick()).await;
    let source = source(&client);
    let series = source.series().await.unwrap();
    fake.fail([Failure::TooLong(2 << 20)]);
    all_frames(&source, &series).await.unwrap();
    fake.fail([Failure::TooLong(2 << 20); 4]);
    let e = all_frames(&source, &series).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::CorruptFrame, "{e}");
}

#[tokio::test]
async fn a_request_has_a_budget_of_retries() {
    let (fake, client) = start(400, quick()).await;
    let source = source(&client);
    let series = source.series().await.unwrap();
    *fake.frame_delay.lock().unwrap() = Duration::from_millis(1);
    // Every frame fails three times before it succeeds.
    let failing = Failure::Refuse(500, "InternalServerException");
    fake.fail((0..2000).map(|i| if i % 4 == 3 { Failure::Delay(Duration::ZERO) } else { failing }));
    let e = all_frames(&source, &series).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Upstream, "{e}");
    let retries = client.stats().operation(Operation::GetImageFrame).retries;
    assert!(retries <= 64 + 402 / 5, "{retries}");
    // The next request has its own budget.
    fake.failures.lock().unwrap().clear();
    let next = AhiSource::new(
        client.within(Arc::new(Allowance::default())),
        ImageSetId::new(DATASTORE, IMAGE_SET).unwrap(),
        None,
    )
    .unwrap();
    fake.fail([failing]);
    next.series().await.unwrap();
}

#[tokio::test]
async fn missing_credentials_are_no_missing_permission() {
    let fake = Fake::start(1).await;
    let aws_settings = AwsSettings {
        region: Some("eu-west-1".to_owned()),
        ahi_endpoint: Some(fake.url.clone()),
        ..AwsSettings::default()
    };
    let config = sdk_config(&aws_settings).await;
    let provider = aws_credential_types::provider::error::CredentialsError::not_loaded("none");
    #[derive(Debug)]
    struct Without(
        std::sync::Mutex<Option<aws_credential_types::provider::error::CredentialsError>>,
    );
    impl aws_credential_types::provider::ProvideCredentials for Without {
        fn provide_credentials<'a>(
            &'a self,
        ) -> aws_credential_types::provider::future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let error = self.0.lock().unwrap().take().unwrap();
            aws_credential_types::provider::future::ProvideCredentials::ready(Err(error))
        }
    }
    let without = SharedCredentialsProvider::new(Without(std::sync::Mutex::new(Some(provider))));
    let config = config.into_builder().credentials_provider(without).build();
    let client = AhiClient::new(aws::ahi_client(&config, &aws_settings), quick());
    let e = series_error(&client).await;
    assert_eq!(e.kind(), ErrorKind::Credentials, "{e}");
    assert_eq!(client.stats().operation(Operation::GetImageSet).attempts, 1);
}
