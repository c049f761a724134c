//! Codes for the anatomy that segmentation models commonly name in their `channel_def`: SNOMED CT as
//! used by DICOM (PS3.16 CID 7150 for categories, CID 7191 and CID 7192 for types, CID 244 for
//! laterality). Names that do not denote exactly one structure have no entry: a missing code can be
//! added in `serving.json`, but a wrong one would be trusted.

use crate::dicom::segment::Code;

/// The codes of a segment's property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Property {
    pub category: Code,
    pub property_type: Code,
    pub type_modifier: Option<Code>,
}

/// Names of an organ or other structure in lower case words, its code, and the code's meaning.
const STRUCTURES: &[(&[&str], &str, &str)] = &[
    (&["adrenal gland"], "23451007", "Adrenal gland"),
    (&["amygdala"], "4958002", "Amygdala"),
    (&["aorta"], "15825003", "Aorta"),
    (&["bladder", "urinary bladder"], "89837001", "Bladder"),
    (&["brachiocephalic trunk"], "12691009", "Innominate artery"),
    (&["brachiocephalic vein"], "8887007", "Innominate vein"),
    (&["brain"], "12738006", "Brain"),
    (&["brain stem", "brainstem"], "119238007", "Brain Stem"),
    (&["caudate", "caudate nucleus"], "11000004", "Caudate Nucleus"),
    (&["cerebellum"], "113305005", "Cerebellum"),
    (&["clavicle", "clavicula"], "51299004", "Clavicle"),
    (&["colon"], "71854001", "Colon"),
    (&["common carotid artery"], "32062004", "Common carotid artery"),
    (&["costal cartilage", "costal cartilages"], "50016007", "Costal Cartilage"),
    (&["duodenum"], "38848004", "Duodenum"),
    (&["esophagus", "oesophagus"], "32849002", "Esophagus"),
    (&["face"], "89545001", "Face"),
    (&["femur"], "71341001", "Femur"),
    (&["fourth ventricle", "4th ventricle"], "35918002", "Fourth Ventricle"),
    (&["gallbladder", "gall bladder"], "28231008", "Gallbladder"),
    (&["heart"], "80891009", "Heart"),
    (&["hippocampus"], "5366008", "Hippocampus"),
    (&["humerus"], "85050009", "Humerus"),
    (&["iliac artery"], "10293006", "Iliac artery"),
    (&["iliac vein", "iliac vena"], "244411005", "Iliac vein"),
    (&["inferior vena cava", "ivc", "postcava"], "64131007", "Inferior vena cava"),
    // The second spelling is the zoo's, in swin_unetr_btcv_segmentation.
    (&["kidney", "kideny", "kidneys"], "64033007", "Kidney"),
    (&["lateral ventricle"], "66720007", "Lateral Ventricle"),
    (&["left atrium", "left heart atrium"], "82471001", "Left atrium"),
    (&["left ventricle", "left heart ventricle"], "87878005", "Left ventricle"),
    (&["liver"], "10200004", "Liver"),
    (&["lung", "lungs"], "39607008", "Lung"),
    (&["lung lower lobe"], "90572001", "Lower lobe of lung"),
    (&["lung upper lobe"], "45653009", "Upper lobe of lung"),
    (&["right lung middle lobe"], "72481006", "Middle lobe of right lung"),
    (&["mandible"], "91609006", "Mandible"),
    (&["pallidum"], "14738005", "Globus Pallidus"),
    (&["pancreas"], "15776009", "Pancreas"),
    (&["portal vein"], "32764006", "Portal vein"),
    (&["prostate"], "41216001", "Prostate"),
    (&["pulmonary artery"], "81040000", "Pulmonary artery"),
    (&["pulmonary vein"], "122972007", "Pulmonary vein"),
    (&["putamen"], "89278009", "Putamen"),
    (&["rectum"], "34402009", "Rectum"),
    (&["rib"], "113197003", "Rib"),
    (&["right atrium", "right heart atrium"], "73829009", "Right atrium"),
    (&["right ventricle", "right heart ventricle"], "53085002", "Right ventricle"),
    (&["sacrum"], "54735007", "Sacrum"),
    (&["scapula"], "79601000", "Scapula"),
    (&["skull"], "89546000", "Skull"),
    (&["small bowel", "small intestine"], "30315005", "Small intestine"),
    (&["spinal cord"], "2748008", "Spinal cord"),
    (&["spine"], "421060004", "Spine"),
    (&["spleen"], "78961009", "Spleen"),
    (&["splenic vein"], "35819009", "Splenic vein"),
    (&["sternum"], "56873002", "Sternum"),
    (&["stomach"], "69695003", "Stomach"),
    (&["subclavian artery"], "36765005", "Subclavian artery"),
    (&["superior vena cava"], "48345005", "Superior vena cava"),
    (&["third ventricle", "3rd ventricle"], "49841001", "Third ventricle"),
    (&["thyroid", "thyroid gland"], "69748006", "Thyroid"),
    (&["trachea"], "44567001", "Trachea"),
    (&["uterus"], "35039007", "Uterus"),
    (&["vertebra", "vertebrae"], "51282000", "Vertebra"),
    (&["vertebrae c1"], "14806007", "C1 vertebra"),
    (&["vertebrae c2"], "39976000", "C2 vertebra"),
    (&["vertebrae c3"], "113205007", "C3 vertebra"),
    (&["vertebrae c4"], "5329002", "C4 vertebra"),
    (&["vertebrae c5"], "36978003", "C5 vertebra"),
    (&["vertebrae c6"], "36054005", "C6 vertebra"),
    (&["vertebrae c7"], "87391001", "C7 vertebra"),
    (&["vertebrae t1"], "64864005", "T1 vertebra"),
    (&["vertebrae t2"], "53733008", "T2 vertebra"),
    (&["vertebrae t3"], "1626008", "T3 vertebra"),
    (&["vertebrae t4"], "73071006", "T4 vertebra"),
    (&["vertebrae t5"], "56401006", "T5 vertebra"),
    (&["vertebrae t6"], "45296009", "T6 vertebra"),
    (&["vertebrae t7"], "62487009", "T7 vertebra"),
    (&["vertebrae t8"], "11068009", "T8 vertebra"),
    (&["vertebrae t9"], "82687006", "T9 vertebra"),
    (&["vertebrae t10"], "7610001", "T10 vertebra"),
    (&["vertebrae t11"], "12989004", "T11 vertebra"),
    (&["vertebrae t12"], "23215003", "T12 vertebra"),
    (&["vertebrae l1"], "66794005", "L1 vertebra"),
    (&["vertebrae l2"], "14293000", "L2 vertebra"),
    (&["vertebrae l3"], "36470004", "L3 vertebra"),
    (&["vertebrae l4"], "11994002", "L4 vertebra"),
    (&["vertebrae l5"], "49668003", "L5 vertebra"),
];

/// Names of tissues (CID 7191), which have their own category.
const TISSUES: &[(&[&str], &str, &str)] = &[
    (&["bone", "bones"], "3138006", "Bone"),
    (&["fat", "adipose tissue"], "55603005", "Fat"),
    (&["muscle", "muscles"], "91727004", "Muscle"),
    (&["skin"], "39937001", "Skin"),
    (&["soft tissue"], "87784001", "Soft tissue"),
];

/// Names of abnormalities (CID 7159).
const ABNORMALITIES: &[(&[&str], &str, &str)] = &[
    (&["cyst"], "367643001", "Cyst"),
    (&["edema", "oedema"], "79654002", "Edema"),
    (&["lesion"], "52988006", "Lesion"),
    (&["necrosis"], "6574001", "Necrosis"),
    (&["neoplasm", "tumor", "tumour"], "108369006", "Neoplasm"),
];

/// Returns the codes for a channel's name in any notation: `Right Kidney`, `kidney_right`.
pub(super) fn lookup(name: &str) -> Option<Property> {
    let lower = name.to_lowercase();
    let words: Vec<&str> =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let is_side = |word: &&str| matches!(*word, "left" | "right");
    let (sides, rest): (Vec<&str>, Vec<&str>) = words.iter().copied().partition(is_side);
    let side = match sides.as_slice() {
        [] => None,
        [side] => Some(*side),
        _ => return None,
    };
    // Some structures exist, or are coded, on one side only.
    if let Some(side) = side
        && let Some(property) = find(&format!("{side} {}", rest.join(" ")), None)
    {
        return Some(property);
    }
    // Ribs are numbered in their names but not in their codes.
    let rest = match rest.as_slice() {
        ["rib", number] if number.parse::<u8>().is_ok_and(|n| (1..=12).contains(&n)) => {
            "rib".to_owned()
        }
        words => words.join(" "),
    };
    find(&rest, side)
}

fn find(name: &str, side: Option<&str>) -> Option<Property> {
    let tables = [
        (STRUCTURES, anatomical_structure as fn() -> Code),
        (TISSUES, tissue),
        (ABNORMALITIES, abnormal_structure),
    ];
    tables.into_iter().find_map(|(table, category)| {
        let (_, value, meaning) = table.iter().find(|(names, ..)| names.contains(&name))?;
        Some(Property {
            category: category(),
            property_type: Code::sct(value, meaning),
            type_modifier: side.map(|side| match side {
                "left" => Code::sct("7771000", "Left"),
                _ => Code::sct("24028007", "Right"),
            }),
        })
    })
}

/// Returns the property of a class with an unknown name: tissue of some kind.
pub(super) fn unknown() -> Property {
    Property { category: tissue(), property_type: tissue(), type_modifier: None }
}

fn anatomical_structure() -> Code {
    Code::sct("91723000", "Anatomical Structure")
}

fn tissue() -> Code {
    Code::sct("85756007", "Tissue")
}

fn abnormal_structure() -> Code {
    Code::sct("49755003", "Morphologically Abnormal Structure")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn found(name: &str) -> (String, Option<String>) {
        let property = lookup(name).unwrap_or_else(|| panic!("{name} is not known"));
        (property.property_type.meaning, property.type_modifier.map(|code| code.meaning))
    }

    #[test]
    fn names_of_the_model_zoo() {
        let plain = |meaning: &str| (meaning.to_owned(), None);
        let on = |meaning: &str, side: &str| (meaning.to_owned(), Some(side.to_owned()));
        assert_eq!(found("spleen"), plain("Spleen"));
        assert_eq!(found("Left Kideny"), on("Kidney", "Left"));
        assert_eq!(found("adrenal_gland_right"), on("Adrenal gland", "Right"));
        assert_eq!(found("rib_left_12"), on("Rib", "Left"));
        assert_eq!(found("right rib 1"), on("Rib", "Right"));
        assert_eq!(found("vertebrae_L5"), plain("L5 vertebra"));
        assert_eq!(found("lung_middle_lobe_right"), plain("Middle lobe of right lung"));
        assert_eq!(found("left lung upper lobe"), on("Upper lobe of lung", "Left"));
        assert_eq!(found("heart_ventricle_left"), plain("Left ventricle"));
        assert_eq!(found("Left-Lateral-Ventricle"), on("Lateral Ventricle", "Left"));
        assert_eq!(found("3rd-Ventricle"), plain("Third ventricle"));
    }

    #[test]
    fn what_is_not_one_structure_is_unknown() {
        for name in ["", "left", "prostate or uterus", "left right kidney", "rib 13", "whole tumor"]
        {
            assert_eq!(lookup(name), None, "{name}");
        }
    }

    #[test]
    fn tissues_and_abnormalities_have_their_categories() {
        assert_eq!(lookup("Bone").unwrap().category, tissue());
        assert_eq!(lookup("lesion").unwrap().category, abnormal_structure());
    }

    #[test]
    fn no_name_or_code_stands_twice() {
        let (mut names, mut codes) = (HashSet::new(), HashSet::new());
        for (aliases, code, _) in [STRUCTURES, TISSUES, ABNORMALITIES].into_iter().flatten() {
            assert!(aliases.iter().all(|name| names.insert(name)), "{aliases:?}");
            assert!(codes.insert(code), "{code}");
        }
    }
}
