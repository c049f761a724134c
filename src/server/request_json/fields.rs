//! The fields of a request, bounded while they are parsed: an overlong list or string is rejected
//! when it exceeds its limit, before it takes memory.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::MOST_INPUTS;
use crate::policy::{PolicyChoice, VolumeChoice};
use crate::request::{OutputKind, SegmentationChoice};

/// Maximum number of images per input.
const MOST_IMAGES: usize = 64;

/// Maximum number of listed outputs, more than there are kinds.
const MOST_OUTPUTS: usize = 16;

/// Maximum number of segments, more than fit in an 8-bit label map.
const MOST_SEGMENTS: usize = 256;

/// A DICOM UID; its format is validated later.
pub(super) type Uid = Text<64>;
/// An AHI identifier.
pub(super) type AhiId = Text<32>;
/// An image set version.
pub(super) type Version = Text<20>;
/// `s3://`, a bucket name of up to 63 characters, and a key of up to 1024 bytes.
pub(super) type Uri = Text<1100>;
/// A segment label: up to 64 characters of up to four bytes.
pub(super) type Label = Text<256>;
/// The name of a model or of one of its images.
pub(super) type Name = Text<1024>;

/// One image: its location and the selected volume of its series.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Image {
    pub datastore_id: Option<AhiId>,
    pub image_set_id: Option<AhiId>,
    pub version_id: Option<Version>,
    #[serde(rename = "studyInstanceUID")]
    pub study_instance_uid: Option<Uid>,
    #[serde(rename = "seriesInstanceUID")]
    pub series_instance_uid: Option<Uid>,
    pub s3_uri: Option<Uri>,
    pub volume: Option<VolumeChoice>,
}

/// Defines a struct with the given fields and those of an [`Image`]. Serde's `flatten` cannot be
/// combined with `deny_unknown_fields`.
macro_rules! beside_an_image {
    ($(#[$doc:meta])* $name:ident { $($(#[$meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$meta])* pub $field: $kind,)*
            datastore_id: Option<AhiId>,
            image_set_id: Option<AhiId>,
            version_id: Option<Version>,
            #[serde(rename = "studyInstanceUID")]
            study_instance_uid: Option<Uid>,
            #[serde(rename = "seriesInstanceUID")]
            series_instance_uid: Option<Uid>,
            s3_uri: Option<Uri>,
            volume: Option<VolumeChoice>,
        }

        impl $name {
            /// Takes the image fields out of `self`.
            pub fn image(&mut self) -> Image {
                Image {
                    datastore_id: self.datastore_id.take(),
                    image_set_id: self.image_set_id.take(),
                    version_id: self.version_id.take(),
                    study_instance_uid: self.study_instance_uid.take(),
                    series_instance_uid: self.series_instance_uid.take(),
                    s3_uri: self.s3_uri.take(),
                    volume: self.volume.take(),
                }
            }
        }
    };
}

beside_an_image! {
    /// The top-level fields.
    Fields {
        inputs: Option<List<Object<InputFields>, MOST_INPUTS>>,
        images: Option<Images>,
        model: Option<Name>,
        outputs: Option<List<OutputKind, MOST_OUTPUTS>>,
        segments: Option<List<Label, MOST_SEGMENTS>>,
        segmentation: Option<Object<SegmentationChoice>>,
        #[serde(rename = "outputS3Uri")]
        output_uri: Option<Uri>,
        store: Option<StoreField>,
        policy: Option<Object<PolicyChoice>>,
    }
}

beside_an_image! {
    /// A single image, or several under `images`.
    InputFields {
        images: Option<Images>,
    }
}

/// `true`, `false`, `{"datastoreId": …}` or `{"dicomweb": …}`.
pub(super) enum StoreField {
    Flag(bool),
    Datastore(AhiId),
    Service(Uri),
}

impl<'de> Deserialize<'de> for StoreField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StoreVisitor)
    }
}

struct StoreVisitor;

impl<'de> Visitor<'de> for StoreVisitor {
    type Value = StoreField;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, an object of `datastoreId` or one of `dicomweb`")
    }

    fn visit_bool<E: serde::de::Error>(self, flag: bool) -> Result<StoreField, E> {
        Ok(StoreField::Flag(flag))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StoreField, A::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Named {
            datastore_id: Option<AhiId>,
            dicomweb: Option<Uri>,
        }
        match Named::deserialize(MapAccessDeserializer::new(map))? {
            Named { datastore_id: Some(id), dicomweb: None } => Ok(StoreField::Datastore(id)),
            Named { datastore_id: None, dicomweb: Some(url) } => Ok(StoreField::Service(url)),
            Named { datastore_id: None, .. } => Err(A::Error::invalid_length(0, &self)),
            Named { .. } => Err(A::Error::invalid_length(2, &self)),
        }
    }
}

/// A string of at most `MOST` bytes.
#[derive(Default)]
pub(super) struct Text<const MOST: usize>(pub String);

impl<'de, const MOST: usize> Deserialize<'de> for Text<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor)
    }
}

struct TextVisitor<const MOST: usize>;

impl<const MOST: usize> Visitor<'_> for TextVisitor<MOST> {
    type Value = Text<MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string of at most {MOST} bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.len() > MOST {
            Err(E::invalid_length(text.len(), &self))
        } else {
            Ok(Text(text.to_owned()))
        }
    }
}

/// A list of at most `MOST` elements.
pub(super) struct List<T, const MOST: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for List<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for ListVisitor<T, MOST> {
    type Value = List<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MOST}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(one) = list.next_element()? {
            if all.len() == MOST {
                return Err(A::Error::invalid_length(MOST + 1, &self));
            }
            all.push(one);
        }
        Ok(List(all))
    }
}

/// Images, as an object keyed by name or as a list.
pub(super) struct Images(pub Vec<(Option<String>, Image)>);

impl<'de> Deserialize<'de> for Images {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ImagesVisitor)
    }
}

struct ImagesVisitor;

impl<'de> Visitor<'de> for ImagesVisitor {
    type Value = Images;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of at most {MOST_IMAGES} images by name or a list of them")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Images, A::Error> {
        let mut images = Vec::new();
        while let Some((Text(name), Object(set))) = map.next_entry::<Name, Object<Image>>()? {
            if images.len() == MOST_IMAGES {
                return Err(A::Error::invalid_length(MOST_IMAGES + 1, &self));
            }
            images.push((Some(name), set));
        }
        Ok(Images(images))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Images, A::Error> {
        let images = ListVisitor::<Object<Image>, MOST_IMAGES>(PhantomData).visit_seq(list)?;
        Ok(Images(images.0.into_iter().map(|Object(set)| (None, set)).collect()))
    }
}

/// A `T` that must be a JSON object: serde's derived struct deserializer accepts arrays, too.
pub(super) struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}
