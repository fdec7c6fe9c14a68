"""The words of the synthetic corpus, version 2: classes of nouns, verbs, adjectives and names, and their forms.

A class lists its words roughly from common to rare; the grammar (:mod:`.open_grammar`) says the first eight most of the
time. Nearly all are spelled as they sound: whoever knows English spelling can write a word that was never seen before.
Verbs and plurals are regular, so forms follow from spelling. Names are made of syllables.
"""

from __future__ import annotations

import re
from itertools import product

_LISTS = {
    "thing": """
        box lamp book cup pen bag map bell pan pot rug lid jar jug mug tub net pin clip ring basket bottle
        blanket bucket candle carpet hammer ladder mirror napkin needle packet pencil ribbon rocket saddle
        ticket kettle bundle handle paddle puzzle cradle barrel tunnel pebble bubble marble bracket socket
        locket magnet helmet hammock tablet trumpet guitar fiddle banjo drum flute whistle camera radio
        telescope lantern torch match stamp stick string thread zipper buckle badge medal coin purse
        wallet album diary notebook letter postcard parcel paper poster picture photo painting drawing
        sketch pillow mattress curtain shutter cork tap plug pump drill spade rake hatchet chisel spanner
        wrench bolt screw nut nail hinge spring lever pedal engine motor battery cable gadget printer
        scanner laptop keyboard speaker microphone antenna remote kite puppet robot yoyo marker crayon
        ruler eraser sharpener folder binder stapler calendar teapot saucer spoon fork plate dish tray
        bowl skillet blender mixer toaster grater funnel strainer thermos flask goblet pitcher chalice
        cauldron broom mop duster sack crate carton trunk suitcase backpack satchel pouch hamper canister
        tin tank cartridge wheel tire pulley rudder mast raft tent tarp flag banner pennant shield lance
        arrow cannon trophy plaque vase ornament trinket necklace bracelet pendant crystal ruby emerald
        opal umbrella parasol brush comb razor towel soap bandage splint pill tonic domino chessboard
        jigsaw racket dumbbell trampoline skateboard tricycle abacus mallet anvil bellows trowel hoe
        sickle scarecrow lasso bridle spindle loom bobbin thimble tassel doormat footstool ax bat stone
        brick rock shell feather leaflet sticker tinsel candlestick toothbrush hairbrush corkscrew
        bookmark clock stopwatch sundial headset modem router charger flashlight matchbox snowball
        football baseball basketball volleyball doll dart sandbag handbag beanbag lunchbox jukebox inkpot
        teaspoon chopstick washcloth dishcloth tablecloth doorbell doorknob hairpin pinwheel windsock
        fishnet toolbox padlock gearbox joystick drumstick broomstick yardstick fishhook bathtub washtub
        dustpan saucepan flagpole totem mold stencil easel palette kiln pestle tripod metronome gong harp
        lute tuba trombone saxophone clarinet piccolo harmonica
    """,
    "furniture": """
        table bench desk shelf bed stool cabinet rack counter sofa armchair wardrobe bookcase dresser
        hutch ottoman pedestal mantel bunk cot crib divan recliner locker safe workbench sideboard lectern
        platform ledge windowsill doorstep staircase carpet fireplace stove fridge freezer piano organ
    """,
    "clothing": """
        hat coat jacket shirt dress skirt sock boot belt vest apron sweater jumper cap bonnet shawl poncho
        cloak kimono tunic mitten slipper sandal sneaker blazer cardigan necktie turban petticoat overcoat
        raincoat waistcoat hood helmet visor sash bandana tuxedo gown robe cape fedora bib parka anorak
        windbreaker sweatshirt tracksuit swimsuit bathrobe nightgown stocking garter overall moccasin clog
    """,
    "vehicle": """
        bus truck van ship boat ferry tractor wagon taxi tram jeep camper rocket barge raft sled
        helicopter airplane glider balloon submarine bicycle motorbike scooter trolley caravan ambulance
        bulldozer tanker steamer rickshaw locomotive minivan convertible pickup forklift minibus hatchback
        snowmobile skateboard sidecar rowboat sailboat tugboat catamaran gondola warship battleship cart
        wheelbarrow
    """,
    "animal": """
        dog cat rabbit fox hen duck pig lion tiger monkey kitten puppy pony donkey camel goat lamb ram
        bull chick rooster turkey pigeon parrot robin falcon raven pelican puffin ostrich flamingo swan
        sparrow magpie canary cuckoo finch kestrel condor vulture panda panther bobcat lynx puma badger
        beaver otter hamster gerbil chipmunk hedgehog weasel ferret skunk raccoon possum porcupine
        armadillo anteater elephant hippo giraffe zebra buffalo antelope gazelle llama alpaca gorilla
        baboon gibbon lemur kangaroo wombat koala platypus snake cobra viper python lizard gecko iguana
        crocodile alligator turtle frog toad newt salamander dolphin walrus octopus lobster crab clam
        oyster limpet urchin sardine mackerel shark stingray barracuda insect beetle cricket hornet wasp
        spider moth butterfly caterpillar dragonfly grasshopper ladybug centipede slug snail worm leech
        hound terrier poodle bulldog mongrel filly mustang bat rat mole vole shrew stork heron crane egret
        ibis quail grouse partridge crow jackdaw starling wren thrush blackbird nightingale swallow swift
        cormorant albatross pheasant eagle hawk buzzard owl woodpecker hummingbird kingfisher macaw
        cockatoo budgie bullfrog tadpole minnow carp pike perch eel dingo hyena jackal mink stoat ocelot
        warthog colt mare piglet duckling gosling cub hatchling termite aphid locust cicada flea tick gnat
        midge
    """,
    "dish": """
        apple banana lemon melon mango plum peach apricot cherry fig coconut pineapple olive carrot potato
        tomato onion pepper cucumber pumpkin radish turnip parsnip cabbage lettuce mushroom artichoke egg
        omelet pancake waffle biscuit cracker muffin cupcake cookie pastry tart pudding sandwich burger
        sausage hotdog kebab burrito taco enchilada dumpling noodle meatball casserole lollipop truffle
        praline nectarine avocado pomegranate tangerine mandarin satsuma grapefruit blackberry strawberry
        cranberry gooseberry peanut hazelnut almond walnut cashew chestnut bagel crumpet scone fritter
        nugget drumstick popsicle pea bean leek beet shallot yam date grape prune raisin currant lime kiwi
        lychee quince bun roll wrap tamale nacho strudel brownie macaroon donut trifle jellybean gumdrop
        marshmallow mint wafer cutlet rib lentil chickpea
    """,
    "food": """
        bread butter milk water soup rice pasta cheese salad pizza chicken bacon ham beef pork fish jam
        honey sugar salt mustard ketchup vinegar pepper garlic ginger cinnamon vanilla toffee candy coffee
        cocoa lemonade cider juice tea yogurt custard cream jelly granola porridge popcorn corn barley
        broccoli celery parsley basil rosemary nutmeg curry macaroni risotto stew gravy broth tofu hummus
        tuna margarine marmalade syrup caramel licorice marzipan sherbet gelatin oil batter yeast muesli
        bran rye sushi chutney relish pesto salsa mayonnaise parmesan mozzarella cheddar brie ricotta kale
        cress okra endive fennel dill sage mint saffron paprika turmeric cumin lard suet
    """,
    "tree": """
        oak pine maple willow elm poplar cedar palm fern ivy moss grass cactus tulip daisy lily poppy
        pansy daffodil iris lilac jasmine lavender marigold carnation buttercup bluebell snowdrop thistle
        nettle clover bramble hawthorn hazel holly laurel juniper cypress hemlock spruce larch sycamore
        eucalyptus bamboo shrub bush hedge vine weed seedling sapling acorn twig branch petal stem blossom
        birch ash fir rowan alder sequoia redwood mango heather primrose hyacinth crocus zinnia aster
        hibiscus snapdragon mistletoe toadstool mushroom reed sedge kelp
    """,
    "job": """
        teacher doctor farmer driver singer dancer baker barber banker painter plumber printer porter
        ranger butler carpenter officer captain pilot sailor actor author editor tutor janitor conductor
        director inspector collector professor senator mayor judge clerk agent dentist artist drummer
        trumpeter cellist composer poet novelist reporter butcher grocer tailor cobbler potter weaver
        blacksmith locksmith goldsmith mason miner welder builder engineer electrician magician musician
        politician physician optician surgeon nurse midwife matron vet athlete jogger runner swimmer
        wrestler boxer golfer goalkeeper referee umpire planner trader broker merchant vendor shopkeeper
        waiter cook bartender hostess cleaner gardener hunter cowboy major general student pupil
        apprentice trainee beginner expert botanist geologist astronaut astronomer vicar bishop deacon
        pastor priest king queen prince princess duke baron countess emperor sultan pirate bandit robber
        burglar detective hermit jester juggler acrobat clown wizard tenant landlord customer visitor
        tourist passenger traveler camper hiker mentor babysitter lumberjack typist president minister
        ambassador diplomat consultant designer inventor sculptor rescuer volunteer helper winner leader
        partner rival orphan twin toddler infant teenager adult banjoist trucker biker skater surfer diver
        rower fencer archer hurler jumper vaulter sprinter cyclist racer jockey bellhop usher bouncer
        cabbie envoy herald squire viking ninja gladiator pope abbot rabbi imam cantor missionary pilgrim
        elf goblin giant troll pixie mermaid vampire zombie phantom monster dragon teller auditor lobbyist
        activist pacifist tyrant dictator delegate sheriff marshal warden jailer smuggler forger vandal
        rascal bully thug
    """,
    "kin": """
        mother father sister brother uncle cousin grandfather husband daughter nephew niece friend
        stepfather stepsister roommate classmate teammate boss landlady twin mentor partner buddy pal chum
        godfather ancestor grandparent parent relative infant
    """,
    "building": """
        station school market library church hotel bank office kitchen shop cabin cottage castle temple
        chapel abbey cathedral tower barn stable factory workshop studio theater cinema pub tavern bakery
        brewery bookshop supermarket pharmacy clinic hospital prison dungeon fortress barracks gym arena
        airport harbor dock terminal lighthouse windmill sawmill mansion villa bungalow apartment hostel
        dormitory nursery kindergarten college academy university observatory gallery embassy greenhouse
        warehouse silo cellar attic basement balcony veranda porch lobby corridor bathroom bedroom pantry
        closet elevator igloo wigwam shed hut tent lodge motel spa sauna salon mall plaza kiosk stall
        booth bunker vault crypt pagoda mosque minaret shrine convent monastery rectory vicarage manor
        grange turret drawbridge archway gateway hallway stairwell loft den parlor ballroom boardroom
        classroom cloakroom darkroom stockroom showroom washroom tollbooth boathouse birdhouse clubhouse
        farmhouse henhouse playhouse treehouse townhouse powerhouse refinery cannery brickyard junkyard
        shipyard graveyard vineyard foundry smithy tannery
    """,
    "land": """
        river hill lake forest garden island bridge beach road park pond field valley meadow canyon desert
        mountain ocean canal swamp marsh jungle orchard vineyard farm ranch village street avenue lane
        alley path trail track tunnel crossing corner square plaza fountain cliff cave cavern volcano
        glacier lagoon reef bay gulf inlet delta estuary waterfall brook creek spring well dam ridge
        summit slope gorge ravine crater dune tundra savanna wilderness hamlet suburb border cemetery
        monument campsite playground racetrack quarry pit ditch trench moat hilltop riverbank roadside
        hillside lakeside woodland marshland grassland wasteland highland lowland moor heath bog fen glade
        grove thicket copse gully basin bluff shoal atoll strait isthmus peninsula cape harbor headland
        sandbank mudflat hayfield cornfield paddock lawn yard patio driveway footpath freeway highway
        motorway railway crossroad junction roundabout overpass viaduct aqueduct
    """,
    "material": """
        wooden metal plastic paper silver golden copper glass rubber leather velvet satin linen silk nylon
        denim flannel marble granite concrete cardboard ceramic crystal bronze brass pewter tin bamboo
        wicker woolen felt ivory enamel
    """,
    "part": """
        hand arm leg head neck chin lip thumb finger elbow shoulder ankle wrist knee hip back chest
        forehead cheek nostril eyebrow eyelash ear palm fist shin thigh kidney liver lung tendon rib spine
        body skull brow temple jaw gum tonsil throat armpit forearm knuckle fingernail belly navel bottom
        kneecap instep nerve artery
    """,
    "idea": """
        plan problem story lesson question answer rule reason secret promise message habit method program
        topic matter moment accident mistake error result system pattern signal number fact factor detail
        option opinion decision direction invention collection selection request demand report budget
        profit salary pension ticket sentence chapter paragraph poem legend myth fable riddle proverb
        motto slogan melody anthem ballad lullaby opera symphony concert festival carnival banquet picnic
        party wedding birthday holiday vacation trip expedition adventure mission match game chess race
        battle struggle revolution election campaign debate lecture seminar meeting session conference
        ceremony parade experiment formula fraction diagram chart graph document manuscript article
        magazine novel drama comedy tragedy mystery puzzle trick joke prank rumor invitation permission
        intention solution condition tradition ambition passion talent skill gift privilege duty burden
        penalty crime scandal disaster flood storm blizzard tornado famine eclipse comet planet star
        galaxy memory dream nightmare vision illusion fantasy miracle omen prophecy letter alphabet
        dialect accent grammar vocabulary dictionary symptom remedy medicine vaccine infection fever
        custom culture sermon clue hint motive target goal purpose chance risk threat danger trap blunder
        disgrace glory victory triumph defeat invoice bonus wage tariff ransom heritage legacy testament
        verdict pardon alibi witness confession quarrel dispute feud grudge insult compliment gesture code
        cipher password keyword command homework essay anecdote parable saga epic sonnet limerick refrain
        jingle tune tango polka minuet foxtrot mime pantomime puppetry sitcom cartoon comic thriller
        romance western documentary forecast headline editorial blog podcast email telegram memo bulletin
        leaflet catalog atlas almanac glossary appendix footnote
    """,
    "weather": """
        cold warm cloudy sunny rainy windy foggy misty hot dry wet dark bright mild chilly frosty icy
        snowy stormy humid damp muggy breezy overcast calm dusty hazy gloomy sultry drizzly
    """,
    "colour": """
        red green yellow black white pink brown golden silver purple scarlet crimson turquoise amber
        maroon magenta indigo lavender cream silvery speckled lime olive teal tan khaki lilac coral rosy
        ruddy sandy ashen inky jet ebony hazel mustard peach plum apricot bronze copper emerald ruby
    """,
    "shape": """
        big little large small long short flat round thick thin huge tall narrow compact massive slim
        giant tiny gigantic enormous oval triangular rectangular spherical slender bulky colossal immense
        oblong circular hexagonal curved pointed crooked hollow solid portable lumpy lopsided wide deep
        steep shallow stubby squat skinny chunky plump bulging sagging slanted tilted vertical horizontal
        diagonal parallel hefty jumbo
    """,
    "state": """
        soft sharp smooth rusty dusty dirty clean fresh simple modern antique heavy cracked broken blunt
        shabby faded tattered rotten slippery sticky greasy muddy soggy sandy salty polished painted empty
        full brittle fragile delicate elastic sturdy solid robust flimsy cheap splendid decent ordinary
        common rare exotic plain fancy elegant ugly pretty magnificent practical useful handy costly
        valuable precious authentic original genuine identical similar different single double triple
        extra spare secondhand complicated electric electronic digital magnetic musical medical magical
        mystical flexible transparent translucent shiny sparkling glittering glossy matted woven knitted
        stolen hidden forgotten missing damaged repaired restored sealed locked folded wrinkled twisted
        bent crumpled frozen melted abandoned symmetrical waterproof fireproof unfinished invisible
        harmless dangerous toxic sacred royal official private public secret local foreign wonky grimy
        murky creaky squeaky wobbly bumpy scruffy fuzzy furry fluffy silky woolly prickly spiky thorny
        jagged rugged padded quilted laced beaded tinted gilded plated welded riveted bolted hinged
        inflated deflated wrapped boxed bottled labeled unlabeled stamped signed unsigned numbered dated
        undated updated outdated upgraded rented borrowed donated discarded rejected selected collected
        invented patented printed framed mounted unmounted loaded unloaded plugged unplugged tangled
        knotted braided stitched patched mended chipped dented scuffed scratched stained spotless seamless
        priceless worthless useless wireless cordless bottomless
    """,
    "mood": """
        happy kind calm brave gentle clever funny silly angry grumpy jolly lonely lazy busy hungry thirsty
        sleepy tired polite honest modest humble proud shy timid nervous jealous generous patient careful
        careless cheerful playful helpful faithful grateful graceful hopeful stubborn selfish foolish
        childish stylish famous serious cautious ambitious mysterious young elderly wealthy healthy sturdy
        skinny plump muscular athletic attractive charming popular friendly cruel wicked rude bitter
        gloomy miserable desperate frantic dramatic romantic energetic optimistic pessimistic sarcastic
        eccentric fantastic intelligent diligent efficient competent confident innocent ignorant arrogant
        reluctant elegant important independent sensitive creative talented gifted spirited sullen merry
        witty sloppy clumsy drowsy hasty crafty nimble noble loyal genial sensible reliable admirable
        formidable vulnerable adorable restless reckless fearless ruthless tireless homeless penniless
        puzzled amused confused relaxed delighted disappointed disgusted embarrassed frightened frustrated
        horrified inspired insulted irritated motivated offended overwhelmed pleased satisfied shocked
        startled stunned surprised terrified tempted thrilled trusted respected admired devoted dedicated
        determined forgetful gullible greedy glum grim jittery jumpy cranky bossy chatty picky pushy
        snobbish snappy smug stern strict tense tipsy zany witless
    """,
    "taste": """
        good bad bitter salty spicy fresh stale bland mild rotten creamy crispy crunchy juicy tender
        greasy delicious dreadful terrible horrible awful splendid disgusting amazing superb tangy nutty
        smoky zesty lumpy watery peppery heavenly syrupy buttery cheesy fruity garlicky gingery minty
        spiced pickled smoked salted sour tart sweet savory tasteless flavorless burned overcooked
        undercooked ripe edible
    """,
    "handle": """
        open lift drop pull push pack lock clean test mend paint move carry watch check fix wash dust
        polish wrap fold press trim scrub twist drag tug kick stack unlock stretch measure adjust inspect
        collect select protect connect reject deliver cover order number gather hammer loosen fasten
        tighten sharpen flatten darken lengthen widen finish furnish varnish publish demolish establish
        copy empty label handle juggle bundle shuffle rattle tickle topple wobble repair restore replace
        reduce introduce rescue value admire require examine imagine combine define describe divide
        provide store ignore explore paddle borrow swallow follow shadow print paste post rent trade stamp
        staple tape tilt tip toss touch trap tuck capture manufacture picture damage manage salvage
        arrange exchange charge decorate illustrate demonstrate investigate operate activate evacuate
        calculate evaluate donate locate relocate rotate imitate isolate celebrate dedicate assemble
        resemble tumble crumple crumble crack smash crush squash squeeze scratch snatch attach detach
        stitch switch patch pinch punch hatch clutch grab grip grasp hoist balance barter burn chain chop
        clamp clasp clip sort spill splash sprinkle spray spot strap stuff swap research release scan
        scatter screen seal settle share shift unpack unwrap unfold untangle unload upload download
        install dismantle disconnect disassemble dissolve preserve deserve reserve observe classify
        identify modify simplify magnify sketch sample salute satisfy smuggle snap stock strengthen
        submerge scrape scrap scribble scramble bump dump jolt lug nail peg pin rig rip rub tack tag
        unbolt unclip unhook unpin unplug unzip wax weld yank swipe scoop scour sift skim slot snip soak
        squirt stain stir suspend transport turn twiddle ransack raffle refill refund reload rename reopen
        repaint replant reprint request retrieve reuse rinse roll rummage auction award bag bottle brand
        budge calibrate confiscate consume convert cradle customize deposit display distribute drain dunk
        endorse engrave enlarge erect export fetch file filter flip grease hack haul heap hook hurl import
        inflate insert insulate invent invert
    """,
    "sense": """
        want like need notice spot remember expect enjoy hate miss admire mention recall recommend demand
        request suggest picture imagine describe discuss inspect photograph consider welcome praise
        criticize avoid mistrust respect regret dread crave desire recognize ignore overlook treasure love
        envy pity study sketch examine tolerate detest despise fear favor watch monitor trace track debate
        question evaluate predict fancy savor relish resent endure await anticipate glimpse observe ponder
        identify memorize
    """,
    "treat": """
        help visit thank trust greet hug kiss call invite follow protect rescue train hire fire assist
        amuse annoy bother contact convince defend distract disturb embarrass entertain flatter frighten
        impress inform insult interrupt marry nominate obey offend pester phone punish question remind
        reward scold startle support surprise tease threaten tickle trick warn welcome worship accuse
        advise appoint approach astonish baffle bewilder challenge charm cheat confuse console consult
        cure deceive delight disappoint employ escort hypnotize inspire irritate mock nudge pamper
        patronize provoke pursue recruit ridicule salute shock summon tempt tutor adopt ambush arrest
        assault attack bait banish beckon bully cheer coach command corner date dazzle defeat defy detain
        dismiss distrust dump elect enchant engage enlist envy flank haunt hinder humiliate infect
        interrogate intimidate isolate jab jail kick kidnap lick lure mob outnumber outsmart pardon pat
        poke prod prompt rebuke refresh rehire relax release replace respect restrain rob shadow shelter
        shun spank spoil strand stump sue tackle target trail victimize
    """,
    "move": """
        walk jump march hop skip rush dash dance climb crawl limp stagger wander gallop trot sprint jog
        hurry travel stroll drift paddle pedal skate ski return escape vanish stumble scramble scuttle
        tiptoe amble ramble saunter swagger slither plunge dive bolt charge retreat advance arrive depart
        emerge migrate navigate orbit roam shuffle sneak strut swerve tumble waddle whirl zigzag zoom
        canter venture glide skid slip slog slouch spiral splash stamp stomp stray surf swarm trek trip
        trudge tramp toddle trundle vault wade wheel wriggle barge bob bound coast commute cruise dart
        ferry flit flutter float hike hitchhike hobble hurtle inch lope lumber lunge lurch meander mosey
        motor parade patrol pop prance prowl race rocket
    """,
    "act": """
        smile laugh cry rest work play cook help listen nod sob giggle grin chuckle blush frown yawn
        sneeze snore shiver tremble blink wink whisper shout yell scream hum whistle clap stretch relax
        vote fish hunt camp study practice exercise faint stammer stutter hesitate hiccup meditate
        concentrate retire improve struggle suffer survive succeed surrender volunteer compete cooperate
        argue quarrel wrestle box knit paint juggle gamble snooze slumber doze dream ponder wonder worry
        sulk shudder squirm wriggle gasp groan grumble mumble mutter growl howl sweat bicker bluff brag
        cheer clown cower cringe daydream doodle drool duck exhale fast fidget flinch fret frolic fume
        glare gloat grieve gulp huddle inhale joke linger loiter lounge mope nag nap pant perspire pose
        pout preach puff quake quiver rebel recite rejoice salute shrug sigh slouch smirk sneer sniff
        snicker sniffle snort splutter squint stare starve stoop strain thrive toil twitch vomit waver
        weaken whimper whine wince yelp yodel
    """,
    "say": """
        believe insist admit suggest claim argue explain mention complain declare announce confess imagine
        pretend remember conclude promise predict deny report repeat notice assume hope wish agree boast
        recall reply gossip warn whisper shout mutter hint stress reveal confirm add allege assert
        calculate clarify comment concede confide contend cry decide demonstrate emphasize exclaim fear
        gather imply joke learn maintain marvel mumble note observe pledge presume proclaim pronounce
        propose realize reason reckon remark respond scream signal snap speculate state suppose testify
        vow wager yell
    """,
    "talk": """
        talk chat argue complain gossip joke dream ask wonder worry quarrel whisper lecture inquire debate
        boast rant mumble ramble lament fantasize agonize babble brag chatter comment fret fuss giggle
        grumble grieve hesitate mutter nag ponder preach quibble rave rejoice speculate squabble whine
    """,
    "cook": """
        cook bake fry boil grill roast toast chop slice peel mix stir mash melt taste serve order pickle
        simmer season garnish marinate blend grate steam heat reheat gobble devour munch nibble swallow
        sample share add barbecue baste brown butter carve char combine cool crush cube deliver dice
        digest drain dunk flavor flip gulp heap ladle mince oil poach prepare roll savor scramble shred
        sip skewer slurp smoke soak spice spoon sprinkle squeeze strain stuff sweeten thicken tenderize
        toss trim whisk
    """,
    "happen": """
        stop start change end finish fail collapse explode vanish expand improve continue appear
        disappear develop evolve crumble topple tumble wobble shatter dissolve crack splinter squeak
        rattle rumble click tick flicker flash glitter glow sparkle shimmer twinkle smolder overflow erupt
        melt evaporate drip drop float dangle rotate vibrate buckle chime clatter clang creak crackle
        crunch dim darken decay deflate drain drift fade fizzle flap flare flood flutter gleam glimmer
        glint glisten gush harden hiss hum jam jerk jingle jolt kindle leak malfunction misfire ooze peel
        perish petrify pop pulsate pulse quiver recede ripple roar rock rot roll rust sag seep settle
        shift sizzle skid slam slip smash snap spark spill sprout sputter stall steam stiffen strain sway
        swirl swivel teeter thaw thicken thud thump tighten tilt tinkle trickle unfold unravel weaken wilt
        wither
    """,
    "manner": """
        again together alone twice indoors outdoors upstairs downstairs forward backward nearby somewhere
        everywhere overnight instead forever
    """,
    "degree": """
        big small old tall short fast slow long cheap soft hard cold warm hot dark bright loud quiet
        strong weak clean thick thin deep rich fresh smooth sharp light wide neat smart strict plain odd
        stiff steep dull mild bold grand fine safe rare pale dense brisk crisp sleek damp
    """,
    "swift": """
        quick slow calm brave gentle polite quiet loud soft sudden patient proud shy nervous eager glad
        firm swift silent secret bold kind warm bitter bright clear constant cautious direct exact final
        frequent frank grim hungry happy heavy humble idle instant intent joint keen lazy light mad mild
        modest neat normal odd open plain playful prompt proper regular rude sad safe selfish serious
        severe sharp stern stiff strict stubborn sweet tender tense tight timid vivid wild wise weak angry
        clumsy merry greedy hasty steady easy joyful bashful boastful grateful hopeful painful peaceful
        skillful tearful careless helpless restless reckless endless
    """,
    "town": """
        paris boston tokyo berlin oslo dublin madrid lisbon vienna milan dallas denver memphis atlanta
        toronto montreal kabul lagos havana lima santiago bogota texas nevada alaska kansas canada mexico
        brazil panama cuba kenya india nepal japan poland finland holland iceland scotland england russia
    """,
}


def _names(onsets: str, codas: str, ends: str, count: int, stride: int) -> tuple[str, ...]:
    """`count` names of syllables, like "tilbo": every `stride`-th combination of onset, vowel, coda and end."""
    combined = ["".join(parts) for parts in product(onsets.split(), "aiou", codas.split(), ends.split())]
    return tuple(combined[step * stride % len(combined)] for step in range(count))


CLASSES: dict[str, tuple[str, ...]] = {name: tuple(words.split()) for name, words in _LISTS.items()} | {
    "given": _names(
        "b d f g h k l m p r s t v z", "l m n k", "bo da do fo ga pa po ra ro sa ta to vin", 1200, 1777
    ),
    "family": _names("b d g h k m p t br gr st tr", "l n m nd", "son man sted kin field ford wick", 300, 977),
    "town": tuple(_LISTS["town"].split())
    + _names("b d f h k l m p r t st tr", "l n m", "ton burg port stead dale bridge", 200, 577),
}
"""Word classes, each from common to rare."""

# plural in -oes
_OES = {"potato", "tomato", "volcano", "domino", "tornado", "buffalo", "mango", "embargo", "veto"}

_DOUBLED = {"admit", "regret", "patrol", "kidnap", "unplug", "unzip", "unwrap", "unpin", "unclip", "zigzag"}


def inflect(word: str, form: str = "") -> str:
    """A form of a regular word: "" as it is, "s" (plural, third person), "ed", "ing", "er", "est", "ly"."""
    if not form:
        return word
    soft_y = word.endswith("y") and word[-2] not in "aeiou"
    if form == "s":
        if soft_y:
            return word[:-1] + "ies"
        return word + ("es" if re.search(r"(s|x|z|ch|sh)$", word) or word in _OES else "s")
    if form == "ly":
        if word.endswith("ic"):
            return word + "ally"
        if re.search(r"[^aeiou]le$", word):
            return word[:-1] + "y"
        return (word[:-1] + "i" if soft_y else word.removesuffix("l") if word.endswith("ll") else word) + "ly"
    if word.endswith("e") and not (form == "ing" and word.endswith(("ee", "oe", "inge"))):
        return word[:-1] + form
    if soft_y and form != "ing":
        return word[:-1] + "i" + form
    if word in _DOUBLED or re.fullmatch(r"(?:[^aeiouy]|qu)*[aeiou][^aeiouwxy]", word):
        return word + word[-1] + form
    return word + form
