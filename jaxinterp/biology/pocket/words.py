"""The words of pocket's world, by what they are for. A word has one use, so that a feature about it has one
meaning.
"""

from __future__ import annotations


def listed(text: str) -> tuple[str, ...]:
    """The words of a text."""
    return tuple(text.split())


# Two-hop facts: a city's name is a prefix and a suffix; every list of an attribute has one value a state.
PREFIXES = listed(
    "north south east west glen mount saint maple cedar willow copper iron silver crystal winter "
    "summer autumn coral marble velvet"
)
SUFFIXES = listed(
    "haven ford field bridge port mill wood brook dale creek ridge grove cliff hollow crossing landing"
)
STATES = listed(
    "arvania belmora cordessa dravenia elmoria farsund galtia hestova isaria jorvia "
    "kelvania lumeria merovia nordova ostavia pelandia quintara rosmora selvania tarvonia"
)
ATTRIBUTES = {
    "capital": listed(
        "aldermoor bramwick carrowby dunmere everstead fallowgate glimmerton harrowick inverholm kestonbury "
        "larkham millstead netherby orchester pellingham quarrington ravenholt stanmere thornbury wexcombe"
    ),
    "governor": listed(
        "abbott barlow castell dawkins ellery farrow gentry hobart ingram jessup "
        "kendrick lockhart mercer norwood ogden pruitt quimby radcliff sinclair talbot"
    ),
    "bird": listed(
        "robin sparrow eagle falcon heron crane finch owl raven pelican swan wren lark hawk quail "
        "oriole kestrel plover magpie gull"
    ),
    "flower": listed(
        "tulip daisy lily orchid poppy violet iris peony lotus jasmine "
        "lilac marigold dahlia aster zinnia begonia primrose camellia magnolia lavender"
    ),
    "river": listed(
        "avel brenna corva dessel ebrin farrin golma hulda irwell jasna kolda lorne medra narva orla "
        "pinna rhona severna tavy ustra"
    ),
    "fish": listed(
        "trout salmon pike perch bass carp cod herring tuna eel "
        "sole halibut mackerel sardine catfish sturgeon bream tench grayling walleye"
    ),
    "fruit": listed(
        "apple pear plum cherry peach mango lemon grape fig melon banana orange papaya guava kiwi "
        "apricot quince raspberry currant olive"
    ),
    "gem": listed(
        "ruby sapphire emerald topaz opal garnet amethyst jade onyx agate "
        "quartz beryl zircon peridot citrine spinel jasper amber pearl turquoise"
    ),
}

# Couplets: (words that may end line 1, nouns that may end line 2), one rhyme each.
RHYMES = {
    "ight": (listed("night bright white sight might fight"), listed("knight kite light flight")),
    "ay": (listed("day way say pray stay away"), listed("bay ray clay tray")),
    "ee": (listed("free three flee agree degree me"), listed("tree bee sea key")),
    "own": (listed("down brown frown drown renown noun"), listed("crown gown town clown")),
    "ore": (listed("more before adore explore ignore four"), listed("shore door store boar")),
    "ain": (listed("again remain explain complain plain vain"), listed("rain train chain grain")),
    "ed": (listed("said red led dead instead ahead"), listed("bed thread bread sled")),
    "ose": (listed("goes knows grows shows flows those"), listed("rose nose hose prose")),
    "all": (listed("all fall call tall recall install"), listed("wall ball hall shawl")),
    "ine": (listed("fine mine shine divine nine decline"), listed("wine pine vine sign")),
    "ound": (listed("found around sound bound round profound"), listed("hound ground mound pound")),
    "ake": (listed("make take wake break shake mistake"), listed("lake cake snake rake")),
}
THEMES = listed("love war work peace")
DETERMINERS = listed("ka ke ki ko")  # one a gender
ADJECTIVES = listed("gentle ancient quiet lonely hidden sacred broken curious proud distant")

# Opposites: pairs, in the same order in each language.
OPPOSITES = {
    "english": listed(
        "big small hot cold fast slow high low old young happy sad strong weak rich poor open closed "
        "full empty "
        "hard soft wet dry pretty ugly early late clean dirty thick thin sweet bitter good bad true "
        "false wide narrow"
    ),
    "french": listed(
        "grand petit chaud froid rapide lent haut bas vieux jeune heureux triste fort faible riche "
        "pauvre ouvert ferme plein vide "
        "dur mou mouille sec joli laid tot tard propre sale epais mince doux amer bon mauvais vrai "
        "faux large etroit"
    ),
    "spanish": listed(
        "grande pequeno caliente frio rapido lento alto bajo viejo joven alegre apenado fuerte debil "
        "rico pobre abierto cerrado "
        "lleno vacio duro blando mojado seco bonito feo temprano tarde limpio sucio grueso delgado "
        "dulce amargo bueno malo "
        "verdadero falso ancho estrecho"
    ),
}

# People.
FIRST_NAMES = listed(
    "james mary john linda robert susan david karen william nancy thomas betty charles helen daniel "
    "sandra matthew donna anthony carol "
    "steven ruth paul sharon andrew laura joshua sarah kenneth kim kevin emma brian anna george "
    "alice edward julia ronald martha "
    "jason diana jeffrey rachel ryan clara jacob nora gary ella eric ivy stephen maya larry zoe "
    "justin tara scott vera"
)
LAST_NAMES = listed(
    "smith johnson williams jones davis miller wilson moore taylor anderson jackson harris martin "
    "thompson garcia martinez robinson clark "
    "rodriguez lewis lee walker allen hernandez wright lopez scottson adams baker gonzalez nelson "
    "carter mitchell perez roberts turner "
    "phillips campbell parker evans edwards collins stewart sanchez morris rogers reed cook morgan "
    "bell murphy bailey rivera cooper "
    "richardson cox howard ward torres peterson"
)
SPORTS = listed("basketball tennis golf soccer boxing hockey baseball cricket")

# Simple sentences.
NOUNS = listed(
    "dog cat horse cow goat pig rabbit farmer teacher doctor dancer painter boy girl sailor singer "
    "window table chair basket"
)
VERBS = ("see", "like", "find", "follow")
PLACES = listed("near behind beside under above")
PREDICATES = listed("ready tired hungry lovely famous here")


def plural(noun: str) -> str:
    """The plural of one of `NOUNS`."""
    return noun + "s"
